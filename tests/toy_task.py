"""Tasks for tests: what an abstract task must have, where a test does not care for it."""

import random

from corrector.tasks.base import Example, Pair, Problem, Split, Task


class ToyTask(Task):
    """Grades nothing, knows nothing of right and wrong, finds every sentence well formed."""

    def size(self, split: Split) -> int:
        return 100

    def example(self, problem: Problem, rng: random.Random) -> Example:
        raise NotImplementedError

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        return dict.fromkeys(self.outcomes, 0.0)

    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        return None

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        return True


class Sums(ToyTask):
    """Answers are written by whoever is tested; right are those that say 12."""

    name, outcomes, max_sentence_tokens = "sums", ("correct",), 24
    wanted = "12"

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        return [Problem(f"p{i}", f"how many has Tom? {i}") for i in range(n)]

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        return {"correct": float(self.wanted in answer)}
