"""What the figures would cost at full size: hours and GiB by arithmetic, from token counts measured on miniatures.

python -m analysis.budget --corrector-params 2.6e9 --upstream-params 8e9

Nothing of that size was run: the table is an estimate. As a module it reads run folders only, and loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.experiments.standins import SHIPPED
from corrector.errors import UserError, run_cli
from corrector.records import read_rows
from corrector.statistics import bootstrap_ratio

GIB = 2**30


@dataclass(frozen=True)
class Budget:
    """Hours and memory of every step, for models of these sizes on one GPU of this speed."""

    corrector_params: float = 2.6e9
    """Parameters of the corrector (Gemma-2-2B)."""
    upstream_params: float = 8.0e9
    """Parameters of the upstream (Llama-3-8B-Instruct)."""
    corrector_cache: int = 2 * 26 * 4 * 256 * 2
    """Bytes of a token's keys and values: 2 x layers x key-value heads x head size x bytes (Gemma-2-2B)."""
    upstream_cache: int = 2 * 32 * 8 * 128 * 2
    """The same of the upstream (Llama-3-8B)."""
    question_tokens: int = 130
    """Tokens of a question with its template (an assumption about GSM8K)."""
    answer_tokens: int = 150
    """Tokens of an answer (an assumption about GSM8K)."""
    sentences: int = 5
    """Sentences of an answer (an assumption about GSM8K)."""
    train_problems: int = 6725
    """Questions that pairs are made of: nine tenths of GSM8K's 7473 training questions."""
    epochs: int = 3
    """Times that the corrector sees each of their sentences."""
    items: int = 200
    """Test pairs of the sweep and of the map."""
    problems: int = 200
    """Test problems of the loops."""
    coefficients: int = 5
    """Coefficients of the sweep, 0 among them."""
    controls: int = 34
    """Directions of `--controls full`, at every coefficient but 0."""
    layers: int = 26
    """Layers of the corrector, for the map."""
    flops: float = 989e12
    """Dense bfloat16 operations a second that the GPU promises (H100)."""
    utilisation: float = 0.4
    """Share of them that prompts and training reach (an assumption)."""
    bandwidth: float = 3.35e12
    """Bytes a second that its memory gives (H100): each step of decoding reads all weights once."""
    step_seconds: float = 0.03
    """Seconds that a forward takes at least, launched from Python layer by layer (an assumption)."""
    batch: int = 64
    """Rows decoded together."""
    drafted: int = 8
    """Rows of the corrector whose drafts one forward verifies: 2**26 logits / (draft x Gemma's 256000)."""
    run: Path = SHIPPED / "sizes"
    """Finished run of analysis.sizes that the counts are measured in."""


@dataclass(frozen=True)
class Part:
    """What one model does in a step."""

    params: float
    cache: int
    """Bytes of a token's keys and values."""
    fed: float
    written: float


@dataclass(frozen=True)
class Step:
    """One line of the table: tokens that are fed and written, hours and GiB."""

    name: str
    fed: float
    written: float
    hours: float
    gib: float


def measured(run: Path) -> dict[str, Any]:
    """Tokens fed a token of the answer, in the loop with all rounds: of the upstream, and of the largest corrector.

    Padding and rejected drafts are counted (`analysis.experiments.meter`). UserError unless the run is finished.
    """
    rows = read_rows(run, "answers")
    if not (run / "DONE").exists() or not rows:
        raise UserError(f"{run} is no finished run of analysis.sizes; give --run one")
    name = rows[-1].get("size", rows[-1]["corrector"])  # the first of its training seeds; older runs have no others
    mine = [r for r in rows if r["corrector"] == name and r["k"] is None and r["tokens"]]
    tokens = [float(r["tokens"]) for r in mine]
    found: dict[str, Any] = {"of": name, "n": len(mine)}
    for who in ("upstream", "corrector"):
        ratio = bootstrap_ratio([float(r[f"{who}_tokens"]) for r in mine], tokens, seed=0)
        found[who] = (ratio.mean, ratio.low, ratio.high)
    return found


def steps(config: Budget) -> list[Step]:
    """Every step of docs/full-size.md, with what `measured` scales."""
    check(config)
    c, whole = config, config.question_tokens + config.answer_tokens
    found = measured(c.run)
    of_upstream, of_corrector = (found[who][0] * c.answer_tokens for who in ("upstream", "corrector"))
    sentence = c.answer_tokens / c.sentences
    pair = whole + sentence  # what a row of edits feeds at most: question, prefix and sentence
    cells = c.coefficients + (c.coefficients - 1) * c.controls

    def rewritten(n: int) -> list[Part]:
        return [Part(c.corrector_params, c.corrector_cache, n * pair, n * sentence)]

    def answered(n: int) -> Part:
        return Part(c.upstream_params, c.upstream_cache, n * of_upstream, 1.0 * n * c.answer_tokens)

    def loop(n: int) -> list[Part]:
        corrector = Part(c.corrector_params, c.corrector_cache, n * of_corrector, 1.0 * n * c.answer_tokens)
        return [answered(n), corrector]

    rows = c.train_problems * c.sentences * c.epochs
    return [
        _step(c, "annotate", [answered(c.train_problems)]),
        Step("train", rows * pair, 0.0, _hours(6 * c.corrector_params * rows * pair, c), 16 * c.corrector_params / GIB),
        _step(c, "heldout", rewritten(1000)),
        _step(c, "align", loop(c.problems)),
        _step(c, "sweep: edits", rewritten(c.items * cells)),
        _step(c, "sweep: loops", loop(2 * c.problems * c.coefficients)),
        _step(c, "rounds", loop(2 * c.problems * 8)),
        _step(c, "sizes", loop(c.problems * 6), rows=1),
        _step(c, "scan", rewritten(2 * (c.items + 460))),
        _step(c, "classify", rewritten(470)),
        _step(c, "map", rewritten(c.items * c.layers * c.coefficients)),
    ]


def check(config: Budget) -> None:
    """Raise UserError for numbers that give no hours."""
    for name, value in vars(config).items():
        if isinstance(value, int | float) and not value > 0:
            raise UserError(f"{name}={value} is not above 0; choose --{name.replace('_', '-')} above 0")
    if config.utilisation > 1:
        raise UserError(f"utilisation={config.utilisation} is above 1; choose --utilisation in 0..1")


def _step(c: Budget, name: str, parts: list[Part], rows: int = 0) -> Step:
    """The slower of two for each model: its operations, and its forwards, one for each token that `rows` rows write.

    A forward reads all weights and takes `step_seconds` at least. Drafts, which spare forwards, are not counted on.
    """
    batch, hours = rows or c.batch, 0.0
    for part in parts:
        together = min(batch, c.drafted) if part.params == c.corrector_params else batch
        each = max(2 * part.params / c.bandwidth, c.step_seconds)
        hours += max(_hours(2 * part.params * part.fed, c), part.written / together * each / 3600)
    length = c.question_tokens + 2 * c.answer_tokens
    gib = sum(2 * part.params + batch * length * part.cache for part in parts) / GIB
    return Step(name, sum(part.fed for part in parts), sum(part.written for part in parts), hours, gib)


def _hours(operations: float, c: Budget) -> float:
    return operations / (c.utilisation * c.flops) / 3600


def table(config: Budget) -> str:
    """The steps as a table in Markdown, with their sum."""
    lines = ["| step | tokens fed (M) | tokens written (M) | hours | GiB |", "| --- | --- | --- | --- | --- |"]
    found = steps(config)
    for s in found:
        lines.append(f"| {s.name} | {s.fed / 1e6:.2f} | {s.written / 1e6:.2f} | {s.hours:.2f} | {s.gib:.0f} |")
    lines.append(f"| all | | | {sum(s.hours for s in found):.1f} | |")
    return "\n".join(lines)


def said(config: Budget) -> str:
    """What was measured, in one sentence."""
    found = measured(config.run)
    ratios = [(who, *found[who]) for who in ("upstream", "corrector")]
    told = [f"{who} {mean:.2f} [{low:.2f}, {high:.2f}]" for who, mean, low, high in ratios]
    return (
        f"Tokens fed a token of the answer, measured in {config.run.name} ({found['of']}, all rounds, n = "
        f"{found['n']}): {', '.join(told)}."
    )


def main(config: Budget) -> None:
    """Print the table, and what it rests on."""
    print(table(config))
    print(f"\n{said(config)}\nAn estimate: nothing of this size was run.")


if __name__ == "__main__":
    run_cli(Budget, main, "analysis.budget")
