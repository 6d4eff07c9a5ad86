"""All figures of the gallery: what each is called, what draws it, and the run folder that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from figures import ablations, cost, dose, latency, map, methods, probes, rounds, scan, sizes, tradeoff, transfer
from figures.drawn import Build

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "figures" / "gallery"


@dataclass(frozen=True)
class Listed:
    """One figure."""

    name: str
    """Stem of its files."""
    build: Build
    run: str
    """Folder of its data, from the root of the repository."""
    shows: str
    """Which of the paper's figures it answers to, or what it is of."""

    @property
    def module(self) -> str:
        """Module that draws it."""
        return self.build.__module__


def _of(build: Build, shows: str, *runs: str, stem: str = "") -> tuple[Listed, ...]:
    """A figure for each of the shipped runs, `fig8-x` as `<stem>-x`."""
    names = [run.replace("fig8-", f"{stem}-") if stem else run for run in runs]
    return tuple(Listed(n, build, f"figures/runs/{r}", shows) for n, r in zip(names, runs, strict=True))


SEEDS = ("fig8-dialogue-0", "fig8-dialogue-1", "fig8-dialogue-2")
SIZES = ("fig8-arithmetic-s", "fig8-arithmetic-m", "fig8-arithmetic-l")
ALIGNERS = ("fig8-aligner-0", "fig8-aligner-1", "fig8-aligner-2")
FIGURES = (
    *_of(rounds.build, "Figures 3, 4 and 5", "rounds-dialogue", "rounds-arithmetic"),
    *_of(sizes.build, "Figure 6", "sizes"),
    *_of(methods.build, "Figure 7", "methods-dialogue", "methods-arithmetic"),
    *_of(latency.build, "latency", "latency"),
    *_of(dose.build, "Figure 8", *SEEDS, *SIZES, *ALIGNERS, stem="dose"),
    *_of(tradeoff.build, "false against missed rewrites, Pareto fronts", *SEEDS, SIZES[-1], stem="tradeoff"),
    *_of(scan.build, "Figure 9", "scan-dialogue", "scan-arithmetic", "scan-aligner"),
    *_of(map.build, "layer x coefficient map", "map-dialogue-0"),
    *_of(ablations.build, "ablations", "ablations-dialogue"),
    *_of(probes.build, "probe grid", "probes-dialogue-0", "probes-arithmetic-l"),
    *_of(transfer.build, "transfer table", "transfer-dialogue"),
    Listed("cost", cost.build, "benchmarks", "benchmark"),
)
