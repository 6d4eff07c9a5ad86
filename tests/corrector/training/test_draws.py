"""Equal data: every method of a seed draws the same questions, corrected answers and sentences."""

import random
from dataclasses import replace

import pytest

from corrector.errors import UserError
from corrector.models import load
from corrector.recipes import BASELINES, RECIPES, SEEDS, STARTS, WRITERS, Train
from corrector.tasks import get
from corrector.tasks.arithmetic.stories import forget_carry
from corrector.tasks.jsonl import Jsonl
from corrector.train import new_model
from corrector.training.draws import answers_hash, counted, draws_at, problems_at

METHODS = ("stream", "aligner", *WRITERS)


@pytest.fixture(scope="module", params=["dialogue", "arithmetic"])
def case(request):
    """(task, pool, config) of each generated task."""
    task = get(request.param)
    return task, task.problems("train", 30), Train(task=request.param, steps=12, batch=3, branches=4, seed=5)


def by_hand(step, pool, task, config):
    """Questions, answers and sentences as the streaming loop has always drawn them, written once more."""
    rng = random.Random(f"{config.seed}/{step}")
    out = []
    for problem in [pool[rng.randrange(len(pool))] for _ in range(config.batch)]:
        example = task.example(problem, rng)
        pairs = [p for s in example.steps for p in s.branches]
        out.append((problem.question, example.answer, tuple(rng.sample(pairs, min(config.branches, len(pairs))))))
    return out


@pytest.mark.parametrize("method", METHODS)
def test_every_method_draws_what_the_stream_corrector_does(case, method):
    task, pool, config = case
    for step in (0, 3, 11):
        drawn = draws_at(step, pool, task, replace(config, method=method))
        assert [(d.example.problem.question, d.example.answer, d.pairs) for d in drawn] == by_hand(
            step, pool, task, config
        )


def test_recipes_of_one_seed_draw_the_same_and_name_it_alike(case):
    task, pool, _ = case
    smallest = {name: config for name, config in SEEDS.items() if "-s-" in name}
    like = {"dialogue": ("dialogue-", ""), "arithmetic": ("arithmetic-s", "-s")}[task.name]
    for seed in range(3):
        stream = RECIPES[f"dialogue-{seed}"] if task.name == "dialogue" else replace(RECIPES[like[0]], seed=seed)
        hashes = {
            name: answers_hash(pool, task, replace(config, pool=30), steps=5)
            for name, config in [("stream", stream), *BASELINES.items(), *smallest.items()]
            if config.task == task.name and config.seed == seed
        }
        assert len(hashes) >= 6 and len(set(hashes.values())) == 1
        sizes = {(c.steps, c.batch, c.pool, c.branches) for c in (stream, *BASELINES.values()) if c.task == task.name}
        assert len(sizes) == 1, "as many questions"


def test_baselines_have_the_correctors_size_or_go_on_from_the_upstream():
    for name, config in BASELINES.items():
        like = RECIPES["dialogue-0" if config.task == "dialogue" else "arithmetic-s"]
        if config.method not in ("expert", "antiexpert"):
            assert (config.d, config.layers, config.heads, config.ff) == (like.d, like.layers, like.heads, like.ff), (
                name
            )
        assert config.init == (f"{config.task}-upstream" if config.method in ("sft", "dpo") else "")
        assert config.makes == ("corrector" if config.method in ("stream", "aligner") else "upstream")


def test_other_seeds_differ_in_nothing_but_the_seed_and_the_model_that_they_start_from():
    assert set(SEEDS) == {f"arithmetic-{size}-{seed}" for size in ("s", "m", "base", "l") for seed in (1, 2)}
    for name, config in SEEDS.items():
        like, seed = name.rsplit("-", 1)
        first = RECIPES[like]
        init = f"{first.init}-{seed}" if first.init else ""
        assert config == replace(first, seed=first.seed + int(seed), init=init)
        assert not init or init.removeprefix("runs/train-") in STARTS


@pytest.mark.parametrize(("task", "like"), [("dialogue", "dialogue-0"), ("arithmetic-s", "arithmetic-s")])
def test_expert_and_antiexpert_have_the_correctors_size_together(task, like):
    name, _, size = task.partition("-")
    suffix = f"-{size}-0" if size else "-0"
    pair = [BASELINES[f"{name}-{method}{suffix}"] for method in ("expert", "antiexpert")]
    total = sum(new_model(config, get(name)).model.num_parameters() for config in pair)
    assert 0.95 <= total / load(like).model.num_parameters() <= 1


def test_the_hash_tells_seeds_and_pools_apart(case):
    task, pool, config = case
    assert answers_hash(pool, task, config) == answers_hash(pool, task, replace(config, method="sft"))
    others = [replace(config, seed=6), replace(config, batch=4), replace(config, steps=11)]
    found = {answers_hash(pool, task, c) for c in (config, *others)} | {answers_hash(pool[1:], task, config)}
    assert len(found) == 5


def test_questions_are_counted(case):
    _, pool, config = case
    drawn = [p.id for step in range(12) for p in problems_at(step, pool, config)[0]]
    assert counted(pool, config) == {"questions": 36, "distinct_questions": len(set(drawn))}
    assert counted(pool[:1], config)["distinct_questions"] == 1


def test_a_whole_pair_is_the_draft_and_its_correction(case):
    task, pool, config = case
    draws = [d for step in range(12) for d in draws_at(step, pool, task, replace(config, method="aligner"))]
    for draw in draws:
        pair = draw.whole
        assert (pair.prefix, pair.last, pair.correction) == ("", draw.draft, draw.example.answer)
        assert pair.problem == draw.example.problem.id and pair.is_wrong == (draw.draft != draw.example.answer)
    assert 0 < sum(d.whole.is_wrong for d in draws) < len(draws), "some answers are copied whole, most are not"
    again = draws_at(4, pool, task, replace(config, method="dpo"))
    assert [d.draft for d in again] == [d.draft for d in draws[12:15]], "every method sees the same draft"


# What a corrector is taught


def teachings(case, **changes):
    """(plain, changed) pairs of some steps, in order; questions and answers must not differ."""
    task, pool, config = case
    config = replace(config, steps=40)
    out = []
    for step in range(40):
        plain, changed = (draws_at(step, pool, task, c) for c in (config, replace(config, **changes)))
        assert [d.example for d in plain] == [d.example for d in changed]
        out += zip(plain, changed, strict=True)
    return out


def copied(pair):
    return pair.last == pair.correction


def test_settings_that_teach_the_usual_change_no_draw(case):
    assert all(a == b for a, b in teachings(case, identity=1.0, warmup=0.0, noise=0.0, unit=1))


def test_without_identity_data_no_correction_is_a_copy(case):
    drawn = teachings(case, identity=0.0)
    assert any(copied(p) for a, _ in drawn for p in a.pairs)
    assert not any(copied(p) for _, b in drawn for p in b.pairs)
    for a, b in drawn:
        rewritten = [p for s in a.example.steps for p in s.branches if not copied(p)]
        assert len(b.pairs) == min(4, len(rewritten)) and all(p in rewritten for p in b.pairs)


def test_a_share_of_the_copies_is_kept(case):
    every = [p for a, _ in teachings(case, identity=0.5) for s in a.example.steps for p in s.branches]
    kept = [p for _, b in teachings(case, identity=0.5) for p in b.pairs]
    share = [sum(map(copied, pairs)) / len(pairs) for pairs in (every, kept)]
    odds = share[0] * 0.5 / (share[0] * 0.5 + 1 - share[0])
    assert share[1] == pytest.approx(odds, abs=0.12)


def test_warm_up_copies_what_the_usual_training_would_correct(case):
    drawn = teachings(case, warmup=0.5)
    half = len(drawn) // 2
    for a, b in drawn[:half]:
        assert [p.last for p in a.pairs] == [p.last for p in b.pairs] and all(map(copied, b.pairs))
    assert drawn[half:] and all(a == b for a, b in drawn[half:])
    assert not all(copied(p) for a, _ in drawn[:half] for p in a.pairs), "bad sentences are copied as well"


def test_noise_turns_a_share_of_the_annotations_round_and_stays_with_the_sentence(case):
    drawn = [(p, q) for a, b in teachings(case, noise=0.3) for p, q in zip(a.pairs, b.pairs, strict=True)]
    wrong = [(p, q) for p, q in drawn if p != q]
    assert len(wrong) / len(drawn) == pytest.approx(0.3, abs=0.06)
    for p, q in wrong:
        assert copied(p) != copied(q) and replace(p, correction=q.correction) == q
    both = {copied(p) for p, _ in wrong}
    assert both == {True, False}, "in both directions"
    by_sentence = {}
    for p, q in drawn:
        by_sentence.setdefault((p.question, p.last, copied(p)), set()).add(p != q)
    assert all(len(of) == 1 for of in by_sentence.values())
    assert all(
        copied(p) != copied(q) for a, b in teachings(case, noise=1.0) for p, q in zip(a.pairs, b.pairs, strict=True)
    )


def test_noise_needs_a_rewritten_sentence_of_the_question(tmp_path):
    file = tmp_path / "copies.jsonl"
    file.write_text('{"question": "Why?", "prefix": "", "last": "So.", "correction": "So."}')
    task = Jsonl(str(file))
    pool = next(task.problems(s, task.size(s)) for s in ("train", "validation", "test") if task.size(s))
    with pytest.raises(UserError, match=r"noise=1\.0: no sentence of the question 'Why\?' is rewritten"):
        draws_at(0, pool, task, Train(task="jsonl", noise=1.0))


# Drafts


def test_a_dialogue_draft_is_the_sentences_that_were_corrected():
    task = get("dialogue")
    for problem in task.problems("train", 40):
        example = task.example(problem, random.Random(problem.id))
        draft = task.draft(example, random.Random(0))
        sentences = [s.strip() for s in task.sentences(draft)]
        assert sentences == [s.branches[0].last for s in example.steps]
        assert [s.strip() for s in task.sentences(example.answer)] == [s.branches[0].correction for s in example.steps]
        assert task.grade(problem, draft)["unparsed"] == 0


def test_an_arithmetic_draft_forgets_carries_and_goes_on_from_there():
    task = get("arithmetic")
    right, wrong = 0, 0
    for problem in task.problems("train", 200):
        example = task.example(problem, random.Random(problem.id))
        draft = task.draft(example, random.Random(problem.id))
        assert task.grade(problem, example.answer) == {"correct": 1.0, "no_answer": 0.0}
        written, answer = task.sentences(draft), task.sentences(example.answer)
        assert len(written) == len(answer)
        if not problem.meta["carry"]:
            assert task.grade(problem, draft)["correct"] == 1.0
        elif task.grade(problem, draft)["correct"]:
            right += 1
        else:
            wrong += 1
    assert wrong > right > 0


def test_an_arithmetic_draft_keeps_styles_and_its_own_total():
    from corrector.tasks.arithmetic import steps_of
    from corrector.tasks.arithmetic.steps import read_sentence

    task, seen = get("arithmetic"), 0
    for problem in task.problems("train", 100):
        example = task.example(problem, random.Random(problem.id))
        draft, total = task.draft(example, random.Random(1)), steps_of(problem.question)[0].left
        for ours, theirs in zip(task.sentences(draft), task.sentences(example.answer), strict=True):
            ours, theirs = read_sentence(ours.strip()), read_sentence(theirs.strip())
            if ours.kind == "step":
                assert ours.style == theirs.style and ours.calculation.left == total
                assert ours.result in (ours.calculation.value, forget_carry(ours.calculation))
                seen += ours.result != ours.calculation.value
            elif ours.kind == "answer":
                assert ours.result == total
            total = ours.result
    assert seen > 20


def test_jsonl_has_whole_answers_where_rows_are_answers(tmp_path):
    whole = tmp_path / "whole.jsonl"
    whole.write_text('{"question": "Why?", "answer": "No. So.", "correction": "Yes. So."}')
    task = Jsonl(str(whole))
    problem = next(p for s in ("train", "validation", "test") for p in task.problems(s, task.size(s)))
    example = task.example(problem, random.Random(0))
    assert (task.draft(example, random.Random(0)), example.answer) == ("No. So.", "Yes. So.")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"question": "Why?", "prefix": "", "last": "No.", "correction": "Yes."}\n'
        '{"question": "Why?", "prefix": "Yes.", "last": "No.", "correction": "Yes."}'
    )
    task = Jsonl(str(rows))
    with pytest.raises(UserError, match="has 2 rows of sentences, no whole answer; give rows of question, answer"):
        task.draft(task.example(problem, random.Random(0)), random.Random(0))
