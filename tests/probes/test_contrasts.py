import random
from dataclasses import replace

import pytest

from corrector.errors import UserError
from corrector.tasks.base import Example, MinimalPair, Pair, Problem, Step
from probes.contrasts import check_leak, contrast_pairs, copy_rewrite, instruction, minimal, teacher_forced
from probes.spans import sequence
from tests.toy_task import ToyTask

GOOD = Pair("p0", "Tom has 3 pens", "he buys 4", "so he has 17 pens", "so he has 17 pens")
BAD = replace(GOOD, last="so he has 18 pens")
LONG = replace(GOOD, last="so he has 18 pens and coins and apples")


class Steps(ToyTask):
    """Problem i has a contrast where i is even."""

    name = "steps"
    outcomes = ("correct",)
    size = 40

    def problems(self, split, n, seed=0):
        if n > self.size:
            raise UserError(f"split {split} holds {self.size} problems, {n} wanted")
        return [Problem(f"{split}-{i}", f"Tom has {i}") for i in range(n)]

    def example(self, problem: Problem, rng: random.Random):
        copied = Pair(problem.id, problem.question, "", "yes", "yes")
        branches = (copied, replace(copied, last="no"), replace(copied, last="not yes and no"))
        even = int(problem.question[-1]) % 2 == 0
        return Example(problem, (Step("", branches if even else branches[:1], "yes"),))


def test_copy_rewrite_matches_within_question_and_prefix_nearest_in_length():
    stray = replace(BAD, problem="p1", question="Ann has 2")
    other = replace(GOOD, prefix="he buys 5")
    long_copy = replace(GOOD, last=LONG.last, correction=LONG.last)
    contrast = copy_rewrite([long_copy, GOOD, BAD, LONG, stray, other])
    assert [(p.pair.last, n.pair.last) for p, n in zip(contrast.positives, contrast.negatives, strict=True)] == [
        (BAD.last, GOOD.last),
        (LONG.last, LONG.last),
    ]
    assert contrast.dropped == 2 and contrast.problems == ("p0", "p0") and len(contrast) == 2


def test_copy_rewrite_uses_each_suffix_once():
    contrast = copy_rewrite([GOOD, BAD, LONG])
    assert len(contrast) == 1 and contrast.dropped == 1


def test_a_contrast_without_matches_is_an_error():
    with pytest.raises(UserError, match="2 dropped"):
        copy_rewrite([BAD, LONG])
    with pytest.raises(UserError, match="no matched pair"):
        teacher_forced([GOOD])


def test_teacher_forced_shares_the_prompt_and_differs_in_the_output(tiny_lm):
    contrast = teacher_forced([GOOD, BAD])
    assert contrast.dropped == 1
    (pos,), (neg,) = contrast.sequences(tiny_lm)
    prompt = slice(*pos.spans["prompt"])
    assert pos.ids[prompt] == neg.ids[prompt]
    assert tiny_lm.decode(list(pos.ids[slice(*pos.spans["output"])])) == BAD.correction
    assert tiny_lm.decode(list(neg.ids[slice(*neg.spans["output"])])) == BAD.last


@pytest.mark.parametrize("template_name", ["lab", "plain"])
def test_minimal_stops_where_the_differing_digit_is_about_to_be_written(make_lm, template_name):
    lm = make_lm("llama", template_name=template_name)
    contrast = minimal(lm, [MinimalPair(GOOD, BAD)])
    assert contrast.positives[0].pair == BAD and contrast.negatives[0].pair == GOOD
    (pos,), (neg,) = contrast.sequences(lm)
    for s in (pos, neg):
        assert lm.decode(list(s.ids[slice(*s.spans["output"])])) == "so he has 1"
        assert s.spans["first_divergence"] == (len(s) - 1, len(s))
    assert pos.ids[slice(*pos.spans["output"])] == neg.ids[slice(*neg.spans["output"])]
    full = lm.encode_target(GOOD.last), lm.encode_target(BAD.last)
    at = pos.spans["first_divergence"][1] - pos.spans["output"][0]
    assert full[0][at] != full[1][at] and full[0][:at] == full[1][:at]


def test_minimal_where_the_first_token_differs_reads_the_last_prompt_token(tiny_lm):
    good = replace(GOOD, last="Tom has 3", correction="Tom has 3")
    contrast = minimal(tiny_lm, [MinimalPair(good, replace(good, last="Ann has 3"))])
    (pos,), _ = contrast.sequences(tiny_lm)
    assert pos.spans["first_divergence"] == pos.spans["prompt_last"]


def test_minimal_refuses_what_is_no_minimal_pair(tiny_lm):
    with pytest.raises(UserError, match="is none"):
        minimal(tiny_lm, [MinimalPair(BAD, GOOD)])
    with pytest.raises(UserError, match="is none"):
        minimal(tiny_lm, [MinimalPair(GOOD, replace(BAD, prefix="he sells 4"))])
    with pytest.raises(UserError, match="same tokens"):
        sequence(tiny_lm, GOOD, GOOD.last, GOOD.last)


def test_contrast_pairs_gives_one_match_a_problem_and_passes_over_the_rest():
    pairs = contrast_pairs(Steps(), "train", 6, seed=1)
    assert [p.problem for p in pairs[::2]] == [p.problem for p in pairs[1::2]]
    assert [p.problem for p in pairs[::2]] == [f"train-{i}" for i in (0, 2, 4, 6, 8, 10)]
    assert len(copy_rewrite(pairs)) == 6 and copy_rewrite(pairs).dropped == 0
    assert pairs == contrast_pairs(Steps(), "train", 6, seed=1)
    assert pairs != contrast_pairs(Steps(), "train", 6, seed=2)


def test_contrast_pairs_draws_again_where_steps_have_one_branch():
    class OneBranch(Steps):
        def example(self, problem, rng):
            (step,) = super().example(problem, rng).steps
            return Example(problem, (replace(step, branches=(rng.choice(step.branches),)),))

    pairs = contrast_pairs(OneBranch(), "train", 6)
    assert len({p.problem for p in pairs}) == len(copy_rewrite(pairs)) == 6


def test_contrast_pairs_says_when_the_split_runs_out():
    with pytest.raises(UserError, match=r"only 15 of 30 problems .* 30 wanted"):
        contrast_pairs(Steps(), "train", 30)
    with pytest.raises(UserError, match="holds 40"):
        contrast_pairs(Steps(), "train", 41)


def test_a_shared_question_is_a_leak():
    train, test = copy_rewrite([GOOD, BAD]), copy_rewrite([replace(p, question="Ann has 2") for p in (GOOD, BAD)])
    check_leak(train, test)
    with pytest.raises(UserError, match="share the question"):
        check_leak(train, copy_rewrite([replace(p, prefix="", question="tom HAS  3 pens") for p in (GOOD, BAD)]))


def test_instruction_changes_the_question_alone(make_lm):
    contrast = instruction([GOOD, BAD])
    assert contrast.problems == ("p0", "p0") and contrast.dropped == 0
    for (rewrite, copy), pair in zip(
        zip(contrast.positives, contrast.negatives, strict=True), (GOOD, BAD), strict=True
    ):
        assert rewrite.pair.question.startswith(f"{pair.question} Rewrite") and rewrite.target is None
        assert copy.pair == replace(rewrite.pair, question=copy.pair.question)
        assert copy.pair.question.startswith(f"{pair.question} Copy")
    lm = make_lm(texts=[s.pair.question for s in (*contrast.positives, *contrast.negatives)])
    for pos, neg in zip(*contrast.sequences(lm), strict=True):
        assert len(pos) == len(neg) and pos.ids != neg.ids and pos.spans["last"] == neg.spans["last"]
    with pytest.raises(UserError, match="no matched pair"):
        instruction([])
