"""What the sweep is measured on: the main job's corrector, pairs and cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import corrector
from corrector import tasks
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from corrector.tasks.base import Pair, Task
from steering.controls import drawn_battery
from steering.sweeping.cells import Cell, Setting, prompts_of
from steering.sweeping.grid import Grid
from steering.sweeping.rows import edit_cells
from steering.sweeping.selection import Source, vectors

COEFS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
LAYER = 4
SOURCE = Source("copy_rewrite", "prompt_last", "prompt_last")


@dataclass(frozen=True)
class Bed:
    """What every contestant works on: a corrector, pairs to correct, and cells with vectors of its own."""

    lm: LanguageModel
    task: Task
    pairs: list[Pair]
    grid: Grid

    @cached_property
    def cells(self) -> list[Cell]:
        """The unsteered one, then the vector and its controls at every coefficient."""
        return edit_cells(self.grid)

    @cached_property
    def prompts(self) -> list[Encoded]:
        return prompts_of(self.lm, self.pairs)

    @property
    def setting(self) -> Setting:
        return self.grid.setting

    def first(self, n: int) -> Bed:
        """The same with n pairs, taken evenly."""
        step = max(len(self.pairs) // n, 1)
        return Bed(self.lm, self.task, self.pairs[::step][:n], self.grid)


def bed(
    corrector_ref: str, task_name: str, items: int, device: str, dtype: str, seed: int, n_controls: int, fitted: int
) -> Bed:
    """The main job's: a vector `fitted` on so many train pairs, random controls of its norm, test pairs."""
    lm, task = corrector.load(corrector_ref, device=device, dtype=dtype), tasks.get(task_name)
    layer = min(LAYER, lm.n_layers - 2)
    (vector,) = vectors(lm, task, [SOURCE], "diff_means", fitted, max(fitted // 4, 2), seed).values()
    battery = drawn_battery(vector, (layer,), n_controls, seed)
    grid = Grid(vector, Setting((layer,), SOURCE.write), COEFS, battery)
    return Bed(lm, task, task.pairs("test", items, seed), grid)
