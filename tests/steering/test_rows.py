import pytest

from corrector import tasks
from corrector.errors import UserError
from corrector.loop import align
from corrector.upstreams import ReplayUpstream
from steering.interventions import Intervention
from steering.rows import parse_rounds


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

    def steer(live):
        return Intervention.of(dialogue_vector, [3.0] * len(live), [1])

    answers = align(
        problems, ReplayUpstream(said), dialogue_lm, task=task, max_rounds=3, steer=steer, steer_rounds=rounds
    )
    for answer in answers:
        assert answer.rounds and all(r.correction is not None for r in answer.rounds)
        assert [k for k, r in enumerate(answer.rounds) if r.applied] == [k for k in steered if k < len(answer.rounds)]
