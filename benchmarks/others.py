"""The sweep's edits by other libraries, on a sample of its cells."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmarks import baselines
from benchmarks.bed import Bed
from benchmarks.timing import Work
from corrector.decoding import decode
from steering.adapters import Backend, generate_steered
from steering.interventions import Edit, make_bank
from steering.sweeping.cells import Cell, intervention


@dataclass(frozen=True)
class Others:
    """The other libraries on a sample of cells, each with all pairs of the bed; round r takes other cells."""

    bed: Bed
    n_cells: int
    batch_size: int
    targets: list[tuple[int, ...]]
    """What the unsteered corrector writes."""
    step: int = 1
    """Every step-th of the lab's items are the bed's."""

    def sample(self, r: int) -> list[int]:
        """Cells of round r: as far apart in coefficient as so few can be, each of another direction."""
        by_direction: dict[str, list[int]] = {}
        for c, cell in enumerate(self.bed.cells):
            if cell.vector is not None:
                by_direction.setdefault(cell.direction, []).append(c)
        directions = list(by_direction.values())
        n, m = self.n_cells, len(directions[0])
        return sorted({directions[(k + r) % len(directions)][(r + k * m // n) % m] for k in range(n)})

    def vector(self, cell: Cell) -> Tensor:
        """What a cell adds to the residual stream."""
        bank = make_bank([cell.vector or {}], self.bed.setting.layers)[0, 0]
        return (cell.coef * bank).to(self.bed.lm.device, self.bed.lm.model.dtype)

    def hook(self, with_kl: bool, r: int) -> Work:
        """HF generate and a forward hook; with_kl: and the divergences, by forwards of their own."""
        b, found = self.bed, dict[Hashable, Any]()
        (layer,) = b.setting.layers
        for c in self.sample(r):
            v = self.vector(b.cells[c])
            wrote = baselines.edits(b.lm, b.prompts, layer, v, b.task.max_sentence_tokens, self.batch_size)
            kl: Sequence[float | None] = [None] * len(wrote)
            if with_kl:
                kl = baselines.divergences(b.lm, b.prompts, self.targets, layer, v, self.batch_size)
            found |= {
                (c, i * self.step): (b.lm.decode(ids), x) for i, (ids, x) in enumerate(zip(wrote, kl, strict=True))
            }
        return Work(len(found), found)

    def library(self, backend: Backend, r: int) -> Work:
        """`generate` of TransformerLens or nnsight."""
        b, found = self.bed, dict[Hashable, Any]()
        for c in self.sample(r):
            edit = Edit(b.cells[c].vector or {}, b.cells[c].coef, b.setting.layers, span=b.setting.span)
            new = b.task.max_sentence_tokens
            wrote = generate_steered(
                b.lm, b.prompts, [edit], max_new_tokens=new, backend=backend, batch_size=self.batch_size
            )
            found |= {(c, i * self.step): (b.lm.decode(list(o.ids)), None) for i, o in enumerate(wrote)}
        return Work(len(found), found)

    def sequences(self, r: int) -> list[tuple[int, ...]]:
        """Prompt and output of every sampled row."""
        b, out = self.bed, list[tuple[int, ...]]()
        for c in self.sample(r):
            steering = intervention(b.cells[c], b.setting, len(b.pairs))
            wrote = decode(b.lm, b.prompts, max_new_tokens=b.task.max_sentence_tokens, steering=steering)
            out += [(*p.ids, *o.ids) for p, o in zip(b.prompts, wrote, strict=True)]
        return out
