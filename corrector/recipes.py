"""How every reference checkpoint is made: one frozen config, shared by `python -m corrector.train` and the card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from corrector.errors import UserError

Method = Literal["stream", "aligner", "sft", "dpo", "expert", "antiexpert"]
WRITERS: tuple[Method, ...] = ("sft", "dpo", "expert", "antiexpert")
"""Methods that train what writes answers, not what corrects them."""


@dataclass(frozen=True)
class Train:
    """Train a corrector (or an upstream) from scratch or from a checkpoint, and write its card.

    Resumes by itself: the same command again goes on from the last checkpoint and ends with the same weights.
    """

    recipe: str = ""
    """A reference to retrain (dialogue-0, arithmetic-m, ...); other flags then change that recipe."""
    task: str = "dialogue"
    """dialogue, arithmetic, gsm8k or jsonl."""
    data: str = ""
    """Local path or hub id for the tasks that read data."""
    role: Literal["corrector", "upstream"] = "corrector"
    """A corrector learns corrections of given sentences; an upstream learns to write answers."""
    method: Method = "stream"
    """stream: sentence by sentence; the others are baselines on the same questions and corrected answers. aligner
    corrects whole answers; sft and expert learn to write corrected answers, antiexpert uncorrected ones; dpo prefers
    the corrected answer to the uncorrected one, and does not resume. All but aligner make an upstream."""
    init: str = ""
    """Checkpoint to start from (reference, folder or hub id); empty: from scratch with the sizes below."""
    d: int = 128
    """Width of the residual stream."""
    layers: int = 6
    """Number of blocks."""
    heads: int = 4
    """Attention heads."""
    ff: int = 352
    """Width of the SwiGLU."""
    vocabulary: int = 0
    """Size of a byte-level BPE vocabulary; 0: whole words, for the generated tasks."""
    opener: str = ""
    """arithmetic only: a word that opens every rewrite of a wrong sentence; empty: repaired in place."""
    steps: int = 5000
    """Optimiser steps."""
    batch: int = 4
    """Problems a step, of all processes together."""
    pool: int = 4000
    """Training questions that rows are drawn from, fewer where the split holds fewer."""
    branches: int = 4
    """Upstream sentences of a problem that one row trains on, drawn anew each time (short rows train faster)."""
    unit: int = 1
    """Sentences that one correction takes together; method aligner takes whole answers."""
    identity: float = 1.0
    """Share of the copied pairs that are trained on; at 0 no correction is ever a copy."""
    warmup: float = 0.0
    """First share of the steps, in which every correction is the sentence itself, as in Aligner's warm-up."""
    noise: float = 0.0
    """Share of the pairs annotated wrongly: rewritten where the annotator copies, copied where it rewrites."""
    lr: float = 1.5e-3
    """Peak learning rate; 100 steps of warm-up, then cosine to a tenth."""
    trunk_weight: float = 0.3
    """Loss weight of the corrected answer as plain text, during the auxiliary steps."""
    last_weight: float = 0.3
    """Loss weight of right sentences where they stand as `last`, during the auxiliary steps."""
    auxiliary: float = 0.6
    """Share of the steps with auxiliary losses; after them the loss is on the correction only."""
    first_weight: float = 1.0
    """Loss weight of a correction's first token, where copy or rewrite is often decided."""
    beta: float = 0.1
    """dpo only: how strongly the model is kept near the one it starts from."""
    nll: float = 1.0
    """dpo only: weight of the corrected answer's own loss beside the preference; 0 is DPO alone, which degenerates
    where the upstream would never write the corrected answer."""
    seed: int = 0
    """Seed of weights and data order."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it trains; of processes that torchrun or accelerate launch starts, each takes a GPU of its own."""
    precision: Literal["mixed", "float32", "bfloat16"] = "mixed"
    """mixed: float32 weights, bfloat16 arithmetic; float32: both; bfloat16: mixed, and LoRA's frozen weights halved."""
    checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""
    accumulate: int = 1
    """Parts that a process computes its share of a step in, one after the other: less memory, the same gradient."""
    shard: bool = False
    """Spread weights, gradients and optimiser state over the processes (FSDP); else each process holds all."""
    lora_rank: int = 0
    """Rank of a LoRA adapter, trained in place of the weights of --init (extra `lora`); 0: all weights."""
    lora_alpha: float = 16.0
    """The adapter's product is scaled by alpha / rank."""
    lora_merge: bool = False
    """Write the whole model, adapter added, in place of the adapter's folder."""
    store: Literal["", "float16", "bfloat16", "float32"] = ""
    """Precision of the stored weights; empty: that of --init, float16 from scratch."""
    out: Path = Path()
    """Folder of the finished checkpoint; default runs/train-<recipe or task>."""
    compile: bool = False
    """Compile the blocks (needs a C++ compiler): 1.4 times as fast here after a minute and a half of compiling."""
    save_every: int = 500
    """Steps between checkpoints that a killed run resumes from."""
    evaluate: int = 1000
    """Held-out pairs for the card's scores; 0: none."""

    @property
    def makes(self) -> Literal["corrector", "upstream"]:
        """What the checkpoint is used as."""
        return "upstream" if self.method in WRITERS else self.role


_DIALOGUE = Train(task="dialogue", steps=4000, first_weight=3.0, last_weight=0.15, compile=True)
_ARITHMETIC = Train(task="arithmetic", steps=8000, last_weight=0.5, trunk_weight=1.0, auxiliary=0.7, compile=True)
_UPSTREAM = Train(role="upstream", layers=4, batch=16, seed=10)

RECIPES: dict[str, Train] = {
    "dialogue-upstream": replace(_UPSTREAM, task="dialogue", steps=2000),
    "dialogue-0": _DIALOGUE,
    "dialogue-1": replace(_DIALOGUE, seed=1),
    "dialogue-2": replace(_DIALOGUE, seed=2),
    "arithmetic-upstream": replace(_UPSTREAM, task="arithmetic", steps=4000),
    "arithmetic-s": replace(_ARITHMETIC, d=64, layers=4, ff=176),
    "arithmetic-m": replace(_ARITHMETIC, d=96, layers=5, ff=256),
    "arithmetic-base": replace(_ARITHMETIC, steps=6000, trunk_weight=0.3, auxiliary=0.6),
    "arithmetic-l": replace(_ARITHMETIC, init="runs/train-arithmetic-base", batch=6, seed=1),
    "gsm8k": Train(task="gsm8k", vocabulary=2048, pool=8000, steps=12000, compile=True),
}
"""In the order in which they are trained."""


def _again(seed: int) -> dict[str, Train]:
    """The correctors of arithmetic from another seed; l goes on from a base of its own, one seed below it as always."""
    large = RECIPES["arithmetic-l"]
    return {
        **{
            f"arithmetic-{size}-{seed}": replace(RECIPES[f"arithmetic-{size}"], seed=seed)
            for size in ("s", "m", "base")
        },
        f"arithmetic-l-{seed}": replace(large, init=f"{large.init}-{seed}", seed=large.seed + seed),
    }


SEEDS: dict[str, Train] = {**_again(1), **_again(2)}
"""Correctors from other training seeds: trained, not shipped, as they would not fit; dialogue's ship."""
STARTS = ("arithmetic-base", "arithmetic-base-1", "arithmetic-base-2")
"""Only the start of another recipe: trained, not shipped."""


TUNED_LR = 5e-4
"""A third of the peak rate that the upstream was trained with."""


def _baselines(task: str, like: Train, half: Train, suffix: str = "") -> dict[str, Train]:
    """Every method that a corrector's recipe is compared with, seeds 0 to 2: same pool, steps, batch and draws.

    The aligner has the corrector's size, from scratch as it is; expert and antiexpert have it together (`half` each),
    from scratch too, since an expert that went on from the upstream would be the sft model itself. sft and dpo go on
    from the upstream, as one does.
    """
    tuned = replace(like, init=f"{task}-upstream", lr=TUNED_LR, compile=False)
    methods: dict[str, Train] = {
        "aligner": replace(like, method="aligner"),
        "sft": replace(tuned, method="sft"),
        "dpo": replace(tuned, method="dpo"),
        "expert": replace(half, method="expert", compile=False),
        "antiexpert": replace(half, method="antiexpert", compile=False),
    }
    return {
        f"{task}-{method}{suffix}-{seed}": replace(config, seed=seed)
        for method, config in methods.items()
        for seed in range(3)
    }


BASELINES: dict[str, Train] = {
    **_baselines("dialogue", _DIALOGUE, replace(_DIALOGUE, d=96, layers=5, ff=272)),
    **_baselines("arithmetic", RECIPES["arithmetic-s"], replace(_ARITHMETIC, d=48, layers=3, ff=160), "-s"),
}
"""What the correctors are compared with."""
KNOWN: dict[str, Train] = RECIPES | SEEDS | BASELINES
"""Every recipe by the name of the checkpoint it makes."""


def recipe(name: str) -> Train:
    """A recipe by the name of the checkpoint it makes; UserError names the ones there are."""
    if name not in KNOWN:
        raise UserError(f"recipe={name!r} is not one of {', '.join(KNOWN)}; choose --recipe among them")
    return KNOWN[name]
