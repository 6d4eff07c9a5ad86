import pytest

from corrector import tasks
from corrector.errors import UserError
from corrector.loop import align
from corrector.upstreams import ReplayUpstream
from steering.controls import Battery, random_controls
from steering.interventions import Intervention
from steering.sweeping.cells import Setting
from steering.sweeping.grid import Grid
from steering.sweeping.plan import Sweep
from steering.sweeping.rows import blocks_of, compute, edit_block, parse_rounds
from steering.sweeping.work import prepare


def test_rounds_are_half_open_ranges_from_0():
    assert parse_rounds("") is None
    assert [parse_rounds(text) for text in ("0:2", "1:", ":3", ":")] == [(0, 2), (1, None), (0, 3), (0, None)]
    for bad in ("2", "2:2", "3:1", "a:b", "-1:2", ":0", "1:2:3"):
        with pytest.raises(UserError, match="no range of rounds"):
            parse_rounds(bad)


@pytest.mark.parametrize(
    ("rounds", "steered"), [(None, (0, 1, 2)), ((0, 1), (0,)), ((1, None), (1, 2)), ((1, 2), (1,)), ((5, 9), ())]
)
def test_only_the_rounds_asked_for_are_steered_and_all_are_corrected(dialogue_lm, dialogue_vector, rounds, steered):
    task = tasks.get("dialogue")
    problems = task.problems("test", 2)
    # three sentences of recorded answers, whatever the corrector makes of them
    said = {p.id: [" You can ask a friend.", " You can wait.", " You can ask a friend."] for p in problems}

    steer = Intervention.of(dialogue_vector, [3.0] * len(problems), [1])
    answers = align(
        problems, ReplayUpstream(said), dialogue_lm, task=task, max_rounds=3, steer=steer, steer_rounds=rounds
    )
    for answer in answers:
        assert answer.rounds and all(r.correction is not None for r in answer.rounds)
        assert [k for k, r in enumerate(answer.rounds) if r.applied] == [k for k in steered if k < len(answer.rounds)]


@pytest.fixture(scope="module")
def prepared(dialogue_folder, upstream_folder, dialogue_vector):
    """Configuration, work and grid of a sweep of 5 items and 3 problems in blocks of 2."""
    changes = {"items": 5, "problems": 3, "block": 2, "coef": (-1.0, 0.0, 1.5), "improve": True, "validation": 2}
    models = {"corrector": str(dialogue_folder), "upstream": str(upstream_folder), "temperature": 1.0}
    config = Sweep(task=("dialogue",), **changes, **models)
    battery = Battery(random_controls(dialogue_vector, (0, 1), 1, 0))
    grid = Grid(dialogue_vector, Setting((0, 1), "prompt_last"), config.coef, battery)
    return config, prepare(config, "dialogue"), grid


def test_blocks_hold_every_item_once_and_say_how_many_rows_they_are(prepared):
    config, work, grid = prepared
    plan = blocks_of(config, {"dialogue": work}, {"dialogue": grid})
    assert list(plan) == ["edits", "validation", "alignments"]
    for file, n, cells in (("edits", 5, 5), ("validation", 3, 3), ("alignments", 3, 4)):
        blocks = plan[file]
        assert [i for b in blocks for i in range(b.start, b.stop)] == list(range(n))
        assert [b.index for b in blocks] == list(range(len(blocks))) and {b.file for b in blocks} == {file}
        assert [b.n_rows for b in blocks] == [(b.stop - b.start) * cells for b in blocks]
        for block in blocks:
            rows = compute(config, work, grid, block)
            assert len(rows) == block.n_rows
            if file == "edits":
                assert [r["item"] for r in rows] == [*range(block.start, block.stop)] * cells
                assert {r["question"] for r in rows} == {p.question for p in work.pairs[block.start : block.stop]}
    assert str(plan["edits"][-1]) == "dialogue 4..4 of edits"


def test_a_block_depends_on_nothing_but_itself(prepared):
    config, work, grid = prepared
    plan = blocks_of(config, {"dialogue": work}, {"dialogue": grid})
    blocks = [b for of_file in plan.values() for b in of_file]
    forth = {b: compute(config, work, grid, b) for b in blocks}
    fresh = prepare(config, "dialogue")
    assert {b: compute(config, fresh, grid, b) for b in reversed(blocks)} == forth


def test_items_have_the_same_numbers_in_blocks_of_any_size(prepared):
    _, work, grid = prepared
    whole = {(r["direction"], r["coef"], r["item"]): r for r in edit_block(work, grid, 0, 5)}
    for size in (1, 2):
        rows = [r for i in range(0, 5, size) for r in edit_block(work, grid, i, min(i + size, 5))]
        assert len(rows) == len(whole)
        for row in rows:
            other = whole[row["direction"], row["coef"], row["item"]]
            assert {**row, "kl": None} == {**other, "kl": None} and row["kl"] == pytest.approx(other["kl"], rel=1e-3)
