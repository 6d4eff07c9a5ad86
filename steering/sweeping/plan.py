"""What a sweep is asked to do: its configuration, as the command line, a notebook and config.json have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corrector.decoding import EVERY, Trick
from corrector.servers.endpoint import Traffic
from corrector.tasks.base import Split
from corrector.upstreams import Served
from probes.directions import Method
from steering.sweeping.doses import Unit
from steering.sweeping.gating import Side, When

BATCH_SIZE = 64
LOOPS: dict[str, Split] = {"validation": "validation", "alignments": "test"}
"""Files of loop rows in the order in which they are written, and the split of their problems."""
FULL_CONTROLS = 34
"""Directions of `--controls full` (steering.controls): random, orthogonal and shuffled ones, length, other layers."""


@dataclass(frozen=True)
class Sweep:
    """Sweep the coefficient of the correction vector: edit metrics, loop outcome and controls from one run.

    The vector is extracted on the train split, layer and position are chosen on validation, all numbers are of the
    test split. The same command again resumes a stopped run.
    """

    coef: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """Coefficients; positive = more correction. 0, the reference, is always measured."""
    coef_unit: Unit = "natural"
    """natural: multiples of the vector; norm: of the mean residual norm, along it; kl: nats of KL a token, calibrated
    on validation pairs for every direction."""
    task: tuple[str, ...] = ("dialogue", "arithmetic")
    """Names of corrector.tasks.NAMES (dialogue, arithmetic, gsm8k, jsonl, hh-rlhf, ...): one or several."""
    corrector: str = ""
    """Corrector (reference, folder or hub id), for one task; empty: each task's reference."""
    upstream: str = ""
    """Upstream (reference, folder, hub id, `replay` of recorded answers, or `server`); empty: the task's own."""
    upstream_server: Served = field(default=Served())
    """server: where and what it is."""
    traffic: Traffic = field(default=Traffic(), metadata={"identity": False})
    """server: how it is asked."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    template: str = ""
    """Prompt template of models whose card names none."""
    vector: Path | None = None
    """A saved vector to steer with instead of extracting one, for one task."""
    method: Method = "diff_means"
    """How the direction is fitted (probes.directions defines each)."""
    layers: tuple[int, ...] = ()
    """Layers to steer, together; empty: one layer, chosen on validation among all but the last (its output is one norm
    away from the logits, where any direction moves tokens)."""
    span: str = ""
    """Tokens to steer (prompt_last, output, last, prompt_last+output, ...); empty: chosen on validation."""
    operator: Literal["add", "ablate", "clamp", "rotate"] = "add"
    """What is done to the residual stream: move along the vector, take a fraction of it out, set the projection on it
    (0: midway between the classes' means on train, -0.5 and 0.5: those means; 0 acts too), or turn by radians."""
    gate: When = ""
    """Steer only where the vector's own projection lies above its threshold on train (midway between the classes'
    means): decided at the prompt's last token for the row, or by each token with that same threshold; empty:
    everywhere."""
    gate_side: Side = "above"
    """above: open where the corrector leans to rewriting; below: where it leans to copying."""
    gate_layer: int | None = None
    """Layer at which the gate reads, the first steered one or an earlier; None: the first steered one."""
    gate_vector: Path | None = None
    """A saved vector to gate with instead of the steered one, for one task."""
    controls: int | Literal["full"] = 5
    """Random directions of equal norm, swept like the vector itself; full: 20 of them, 5 orthogonal to the vector, 5
    fits on shuffled labels, length, the vector without length, other layers, and prompts to copy or to rewrite."""
    items: int = 100
    """Test pairs a cell."""
    problems: int = 50
    """Test problems of the align loop a coefficient; 0: no loop."""
    rounds: str = ""
    """Rounds of the loop that are steered, i:j with i from 0 and j left out (1: is all but the first); empty: all."""
    improve: bool = False
    """Choose the coefficient with the best loop outcome on as many validation problems, and test it against 0."""
    pairs: int = 240
    """Contrast pairs that the vector is fitted on (train split)."""
    validation: int = 40
    """Pairs that layer and position are chosen on (validation split)."""
    temperature: float | None = None
    """The upstream's temperature; None: the task's own (dialogue 1, others greedy)."""
    seed: int = 0
    """Seed of items, controls and the upstream's draws."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    block: int = 32
    """Items (in the loop: problems) of a block, the unit of work: all cells of it are computed together, blocks in any
    order and on any machine, and a kill loses no more than the blocks that were being computed."""
    tricks: tuple[Trick, ...] = EVERY
    """What spares the decoder work without changing a token; `--tricks` with nothing behind it decodes plainly."""
    engine: Literal["local", "ray"] = field(default="local", metadata={"identity": False})
    """local: block after block in this process; ray: on the workers of a Ray cluster, to the same rows."""
    address: str = field(default="", metadata={"identity": False})
    """Of engine ray: the cluster's address, or auto; empty: start one on this machine."""
    workers: int = field(default=0, metadata={"identity": False})
    """Of engine ray: processes, each with the models; 0: one for every CPU (with --device cuda: GPU) of the cluster."""
    gpus_per_worker: float = field(default=1.0, metadata={"identity": False})
    """Of engine ray with --device cuda: GPUs a worker; below 1, such as 0.25, workers share one."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Run folder; default runs/sweep-<hash of this configuration>."""

    @property
    def batch_size(self) -> int:
        """Rows that an upstream in this process decodes together."""
        return BATCH_SIZE
