"""The claims of Stream Aligner (2501.05336), each beside what run folders measured. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis.ablations import ablation_statistics
from analysis.claims.decisions import verdicts
from analysis.claims.found import Found, read
from analysis.dose import dose_statistics
from analysis.latency import latency_statistics
from analysis.methods import methods_statistics
from analysis.onset import load_curves
from analysis.rounds import rounds_statistics
from analysis.sizes import sizes_statistics
from corrector.records import read_json
from corrector.statistics import LEVEL

Sign = Literal[-1, 0, 1]


@dataclass(frozen=True)
class Claim:
    """What the paper says, and the finding that bears on it."""

    figure: str
    text: str
    paper: str
    """Its number, as printed there."""
    key: str
    """Of the findings, one a corrector or scan."""
    expected: Sign = 1
    """On which side of the null the paper has it; 0: at the null, that is, no difference."""


CLAIMS: tuple[Claim, ...] = (
    Claim("3a", "correction wins on helpfulness", "+76.1 % (abstract: +41.2 %)", "dialogue/helpful/omega at peak"),
    Claim("3a", "correction wins on harmlessness", "+36.0 %", "dialogue/harmless/omega"),
    Claim("3b", "correction lifts accuracy in math", "+19.0 % (8B + 2B), +3.5 % (70B + 8B)", "arithmetic/correct/gain"),
    Claim("4", "helpfulness falls behind its peak", "falls", "dialogue/helpful/after peak", -1),
    Claim("4", "harmlessness goes on rising there", "rises", "dialogue/harmless/after peak"),
    Claim("5", "continue ends where stream ends (math)", "converge", "arithmetic/correct/continue at last", 0),
    Claim("6", "the larger corrector gains more", "+11.3 % (8B), +6.1 % (2B)", "arithmetic/sizes/correct/larger"),
    Claim("6", "the larger corrector converges later", "later", "arithmetic/sizes/correct/later"),
    Claim("7", "Stream Aligner lifts accuracy", "+5.8 %", "arithmetic/methods/stream/correct"),
    Claim("7", "SFT does not", "-0.5 %", "arithmetic/methods/sft/correct", 0),
    Claim("7", "DPO does not", "+0.3 %", "arithmetic/methods/dpo/correct", 0),
    Claim("7", "Stream Aligner beats Aligner (math)", "2B as 70B", "arithmetic/methods/stream less aligner/correct"),
    Claim("7", "Stream Aligner beats proxy-tuning (math)", "beats", "arithmetic/methods/stream less proxy/correct"),
    Claim("7", "Stream Aligner beats Aligner (helpful)", "beats", "dialogue/methods/stream less aligner/helpful"),
    Claim("7", "Stream Aligner beats Aligner (harmless)", "beats", "dialogue/methods/stream less aligner/harmless"),
    Claim("7", "Stream Aligner beats SFT (helpful)", "beats", "dialogue/methods/stream less sft/helpful"),
    Claim("7", "Stream Aligner beats DPO (helpful)", "beats", "dialogue/methods/stream less dpo/helpful"),
    Claim("7", "Stream Aligner beats proxy-tuning (helpful)", "beats", "dialogue/methods/stream less proxy/helpful"),
    Claim("text", "a token takes less time than Aligner's, fast", "0.80", "dialogue/latency/per_token/fast/0", -1),
    Claim("text", "a token takes less time than Aligner's, plain", "0.80", "dialogue/latency/per_token/plain/0", -1),
    Claim("text", "Aligner's first token comes later, fast decoding", "10 times", "dialogue/latency/first/fast/0"),
    Claim("text", "Aligner's first token comes later, plain decoding", "10 times", "dialogue/latency/first/plain/0"),
    Claim("8", "Aligner: edit ratio rises", "0.6 to 4.0 over -1 to 0.5", "dialogue@answer/dose/slope"),
    Claim("8", "Aligner: more than along random directions", "no control", "dialogue@answer/dose/ratio"),
    Claim("8", "Stream Aligner: edit ratio rises (QA)", "not shown there", "dialogue/dose/slope"),
    Claim("8", "Stream Aligner: more than along random directions", "no control", "dialogue/dose/ratio"),
    Claim("8", "Stream Aligner: edit ratio rises (math)", "not shown there", "arithmetic/dose/slope"),
    Claim("9", "decided in early layers (QA, Stream Aligner)", "early", "dialogue/scan/early"),
    Claim("9", "decided in early layers (QA, Aligner)", "early", "dialogue@answer/scan/early"),
    Claim("9", "extent first, then executed (QA, Stream Aligner)", "seen in maps", "dialogue/scan/decided first"),
    Claim("9", "extent first, then executed (QA, Aligner)", "seen in maps", "dialogue@answer/scan/decided first"),
    Claim("9", "extent first, then executed (math)", "seen in maps", "arithmetic/scan/decided first"),
    Claim("9", "math uses more layers to decide", "seen in maps", "scan/more layers"),
)  # fmt: skip


def findings(runs: Iterable[Path]) -> dict[str, list[Found]]:
    """The findings of finished run folders by key; a folder's kind is the beginning of its name (KINDS)."""
    out: dict[str, list[Found]] = {}
    folders = sorted(runs)
    for kind, of in KINDS.items():
        mine = [f for f in folders if kind_of(f) == kind and (f / "DONE").is_file()]
        for found in of(tuple(mine)):
            out.setdefault(found.key, []).append(found)
    return out


def kind_of(folder: Path) -> str:
    """The kind of a run by its folder's name; empty where no claim rests on such runs."""
    return next((kind for kind in KINDS if folder.name.startswith(kind)), "")


def _each(statistics: Callable[[Path], dict[str, object]]) -> Callable[[Sequence[Path]], list[Found]]:
    def of(runs: Sequence[Path]) -> list[Found]:
        return [found for run in runs for found in read(statistics(run)["findings"])]  # type: ignore[arg-type]

    return of


def dose_findings(runs: Sequence[Path]) -> list[Found]:
    """Slope of the edit ratio on the coefficient, its multiple of the steepest null direction, and R² of the line."""
    out: list[Found] = []
    for run in runs:
        corrector = read_json(run, "config")["corrector"]
        for task, of in dose_statistics(run)["tasks"].items():
            n, nulls = of["n_questions"], f"{of['n_null']} null directions"
            slope = f"layer {of['layers'][0]}, chosen on validation; R2 of a line {_or_none(of['r2'])}"
            out.append(Found(f"{task}/dose/slope", corrector, of["slope"], of["slope_low"], of["slope_high"], n, slope))
            out.append(Found(f"{task}/dose/r2", corrector, of["r2"], None, None, n, "of a line through the means"))
            if of["ratio"] is not None:
                p = f"times the steepest of {nulls}, p {of['p']:.2g}, least possible {of['p_least']:.2g}"
                holds = bool(of["steers"]) and of["p"] <= LEVEL
                out.append(Found(f"{task}/dose/ratio", corrector, of["ratio"], None, None, n, p, 1.0, holds))
    return out


def scan_findings(runs: Sequence[Path]) -> list[Found]:
    """Verdicts of `analysis.claims.decisions` over all scans together, since some compare tasks."""
    out: list[Found] = []
    curves = [c for run in runs for c in load_curves(run)]
    for v in verdicts(curves) if curves else ():
        key = f"scan/{v.name}" if v.name == "more layers" else f"{v.task}/scan/{v.name}"
        out.append(Found(key, v.subject, None, None, None, v.n, v.reason, holds=v.holds))
    return out


def _or_none(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


KINDS: dict[str, Callable[[Sequence[Path]], list[Found]]] = {
    "rounds-": _each(rounds_statistics),
    "sizes": _each(sizes_statistics),
    "methods-": _each(methods_statistics),
    "latency": _each(latency_statistics),
    "ablations": _each(ablation_statistics),
    "fig8-": dose_findings,
    "scan-": scan_findings,
}


@dataclass(frozen=True)
class Verdict:
    """A claim with its findings and what they come to."""

    claim: Claim
    found: tuple[Found, ...]

    @property
    def same_sign(self) -> int:
        """Findings on the side of the null that the paper has, or, where it has no difference, that cannot tell one."""
        return sum(agrees(self.claim, f) for f in self.found)

    @property
    def significant(self) -> int:
        """Those of them whose interval leaves the null out (no difference: that leave it in)."""
        return sum(agrees(self.claim, f) and shown(self.claim, f) for f in self.found)

    @property
    def against(self) -> int:
        """Findings on the other side whose interval leaves the null out."""
        return sum(not agrees(self.claim, f) and (f.holds is False or f.significant is True) for f in self.found)

    @property
    def word(self) -> str:
        """Not run, holds, holds in part, not shown, or disagrees."""
        n = len(self.found)
        if not n:
            return "not run"
        if self.significant == n:
            return "holds"
        if self.against == n or (self.against and not self.significant):
            return "disagrees"
        return "holds in part" if self.significant else "not shown"


def agrees(claim: Claim, found: Found) -> bool:
    """Same sign as the paper's, or, of a verdict, that it holds."""
    if found.value is None:
        return found.holds is True
    if claim.expected == 0:
        return found.significant is not True
    return found.sign == claim.expected


def shown(claim: Claim, found: Found) -> bool:
    """Whether an agreeing finding is more than a sign."""
    if found.holds is not None:
        return found.holds
    return found.significant is False if claim.expected == 0 else found.significant is True


def judge(found: dict[str, list[Found]]) -> list[Verdict]:
    """Every claim's verdict."""
    return [Verdict(claim, tuple(found.get(claim.key, ()))) for claim in CLAIMS]
