import math
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import template
from corrector.recipes import Train
from corrector.tasks.base import Example, Pair, Problem, Split, Step
from corrector.training import loop as training
from corrector.training.draws import draws_at
from corrector.training.loop import STATE, batch_at, learning_rate, loss_of, train
from corrector.training.packing import IGNORE, Batch
from corrector.training.rows import written_row
from corrector.training.tokenizers import bpe_tokenizer, word_tokenizer
from tests.toy_task import ToyTask

WORDS = "red blue green dim odd".split()


@dataclass(frozen=True)
class Colours(ToyTask):
    """Says colours; a wrong one is repaired. Small, and its examples say what is trained."""

    name: ClassVar[str] = "colours"
    outcomes: ClassVar[tuple[str, ...]] = ("correct",)
    own: bool = True

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        return [Problem(f"{i}", f"What is {WORDS[i % 5]} and {WORDS[i // 5]}?") for i in range(n)]

    def size(self, split: Split) -> int:
        return 25

    def example(self, problem: Problem, rng: random.Random) -> Example:
        steps, prefix = [], ""
        for _ in range(rng.choice((1, 2, 3))):
            right, wrong = rng.sample(WORDS, 2)
            good, bad, fixed = f"It is {right}.", f"It is {wrong} {wrong}.", f"No, it is {right}, not {wrong}."
            pairs = (
                Pair(problem.id, problem.question, prefix, good, good, False, "good"),
                Pair(problem.id, problem.question, prefix, bad, fixed, True, "bad"),
            )
            chosen = " " * bool(prefix) + rng.choice(pairs).correction
            steps.append(Step(prefix, pairs, chosen))
            prefix += chosen
        return Example(problem, tuple(steps))

    def upstream_spans(self, problem: Problem, rng: random.Random) -> list[tuple[str, bool]]:
        return super().upstream_spans(problem, rng) if self.own else [("It is red.", False)]


TASK = Colours()
POOL = TASK.problems("train", 20)
TEXTS = [
    f"{lead} {w}{end}"
    for w in WORDS
    for lead in ("It is", "What is", "No, it is", " It", " No, not and")
    for end in ".,?"
]
CONFIG = Train(steps=8, batch=2, branches=3, save_every=4, first_weight=3.0, lr=1e-2, auxiliary=0.5)
ALL = replace(CONFIG, branches=99)
"""Every branch is trained on, so that the examples alone say what is counted."""


@pytest.fixture(params=["words", "bytes"])
def lm(request, make_lm) -> LanguageModel:
    fresh = make_lm(n_layers=1)
    tokenizer = word_tokenizer(TEXTS) if request.param == "words" else bpe_tokenizer(TEXTS, 275)
    fresh.model.resize_token_embeddings(len(tokenizer))
    fresh.model.requires_grad_(True)
    return LanguageModel(fresh.model, tokenizer, template("lab"), "random")


def fresh_lm(make_lm, seed: int = 0) -> LanguageModel:
    lm = make_lm(texts=TEXTS, n_layers=1, seed=seed)
    lm.model.requires_grad_(True)
    return lm


@dataclass(frozen=True)
class Recording(Colours):
    """Keeps the examples that it gave."""

    given: list[Example] = field(default_factory=list)

    def example(self, problem: Problem, rng: random.Random) -> Example:
        self.given.append(super().example(problem, rng))
        return self.given[-1]


def n_tokens(lm: LanguageModel, text: str) -> int:
    return len(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def targets(batch: Batch, weight: float | None = None) -> torch.Tensor:
    chosen = batch.targets != IGNORE
    if weight is not None:
        chosen &= torch.isclose(batch.weights, torch.tensor(weight))
    return batch.targets[chosen]


# What is trained


@pytest.mark.parametrize("step", [4, 7])
def test_after_the_auxiliary_steps_corrections_alone_are_trained_and_all_of_them(lm, step):
    task = Recording()
    batch = batch_at(step, POOL, task, lm, ALL)
    pairs = [p for example in task.given for s in example.steps for p in s.branches]
    assert len(targets(batch)) == sum(n_tokens(lm, p.correction) + 1 for p in pairs)
    assert len(targets(batch, 3.0)) == len(pairs), "a first token each"
    trained = lm.tokenizer.decode(targets(batch).tolist()).split("<eos>")
    assert trained.pop() == "" and sorted(trained) == sorted(p.correction for p in pairs)
    assert set(batch.weights[batch.targets != IGNORE].tolist()) == {1.0, 3.0}


@pytest.mark.parametrize("step", [0, 3])
def test_during_the_auxiliary_steps_the_answer_and_right_sentences_are_trained_too(lm, step):
    config = replace(ALL, trunk_weight=0.25, last_weight=0.125)
    task = Recording()
    batch = batch_at(step, POOL, task, lm, config)
    pairs = [p for example in task.given for s in example.steps for p in s.branches]
    assert len(targets(batch, 0.25)) == sum(n_tokens(lm, example.answer) for example in task.given)
    assert len(targets(batch, 0.125)) == sum(n_tokens(lm, p.last) for p in pairs if not p.is_wrong)
    corrections = len(targets(batch, 1.0)) + len(targets(batch, 3.0))
    assert corrections == sum(n_tokens(lm, p.correction) + 1 for p in pairs)
    assert set(batch.weights[batch.targets != IGNORE].tolist()) == {0.125, 0.25, 1.0, 3.0}


def test_fewer_branches_are_drawn_where_asked(lm):
    counts = [len(targets(batch_at(step, POOL, TASK, lm, replace(CONFIG, branches=1)), 3.0)) for step in range(4, 8)]
    assert counts == [CONFIG.batch] * 4


def test_an_upstream_learns_its_own_sentences_and_nothing_of_its_context(lm):
    seen = set()
    for seed in range(30):
        spans = TASK.upstream_spans(POOL[3], random.Random(seed))
        row = written_row(lm, POOL[3].question, spans)
        trained = lm.tokenizer.decode([t for t in row.targets if t != IGNORE])
        end = "<eos>" if spans[-1][1] else ""
        assert trained == "".join(text for text, own in spans if own) + end
        assert lm.tokenizer.decode(list(row.ids)) == f"<q>{POOL[3].question}<p>{''.join(t for t, _ in spans)}<eos>"
        seen.add(tuple(own for _, own in spans))
    assert {(True, False), (False, True), (False,), (True,)} <= seen


@pytest.mark.parametrize("method", ["sft", "expert", "antiexpert"])
def test_writers_learn_whole_answers_behind_the_question(method, lm):
    config = replace(ALL, method=method)
    batch = batch_at(5, POOL, TASK, lm, config)
    drawn = draws_at(5, POOL, TASK, config)
    for draw, ids, wanted in zip(drawn, batch.ids, batch.targets, strict=True):
        answer = draw.draft if method == "antiexpert" else draw.example.answer
        assert lm.tokenizer.decode(wanted[wanted != IGNORE].tolist()) == answer + "<eos>"
        assert lm.tokenizer.decode(ids).startswith(f"<q>{draw.example.problem.question}<p>{answer}<eos>")
    assert set(batch.weights[batch.targets != IGNORE].tolist()) == {1.0}
    assert any(d.draft != d.example.answer for d in drawn)


@pytest.mark.parametrize("step", [0, 5])
def test_an_aligner_learns_whole_corrections_and_where_each_sentence_begins(step, lm):
    config = replace(ALL, method="aligner", batch=4, trunk_weight=0.25, last_weight=0.125)
    batch = batch_at(step, POOL, TASK, lm, config)
    drawn = draws_at(step, POOL, TASK, config)
    answers = [d.example.answer for d in drawn]
    firsts = [t for d in drawn for s in TASK.sentences(d.example.answer) for t in lm.encode_target(s)[:1]]
    assert targets(batch, 3.0).tolist() == firsts and len(firsts) > len(drawn)
    whole = len(targets(batch, 1.0)) + len(firsts)
    assert whole == sum(n_tokens(lm, a) + 1 for a in answers)
    trunk = sum(n_tokens(lm, a) for a in answers) if step < 4 else 0
    copied = sum(n_tokens(lm, d.draft) for d in drawn if d.draft == d.example.answer) if step < 4 else 0
    assert (len(targets(batch, 0.25)), len(targets(batch, 0.125))) == (trunk, copied)
    for draw, ids in zip(drawn, batch.ids, strict=True):
        question, answer = draw.example.problem.question, draw.example.answer
        # the branch leaves the trunk behind <p>, since the pair has no prefix
        assert lm.tokenizer.decode(ids).startswith(f"<q>{question}<p>{answer}<y1>{draw.draft}<y2>{answer}<eos>")


def test_a_preference_is_no_row_of_this_loop(lm):
    with pytest.raises(ValueError, match=r"trained by corrector\.training\.preference"):
        batch_at(0, POOL, TASK, lm, replace(CONFIG, method="dpo"))


def test_batches_follow_from_seed_and_step_alone(lm):
    first, again = (batch_at(3, POOL, TASK, lm, CONFIG) for _ in range(2))
    assert torch.equal(first.ids, again.ids) and torch.equal(first.mask, again.mask)
    for other in (batch_at(4, POOL, TASK, lm, CONFIG), batch_at(3, POOL, TASK, lm, replace(CONFIG, seed=1))):
        assert first.ids.shape != other.ids.shape or not torch.equal(first.ids, other.ids)


def test_the_loss_is_the_weighted_mean_over_trained_tokens(lm):
    batch = batch_at(0, POOL, TASK, lm, CONFIG)
    with torch.no_grad():
        hidden = lm.model.model(batch.ids, attention_mask=batch.mask, position_ids=batch.positions)
        logp = lm.model.lm_head(hidden.last_hidden_state).log_softmax(-1)
        total = weight = 0.0
        for r, i in (batch.targets != IGNORE).nonzero().tolist():
            w = batch.weights[r, i].item()
            total, weight = total - w * logp[r, i, batch.targets[r, i]].item(), weight + w
        assert loss_of(lm.model, batch).item() == pytest.approx(total / weight, rel=1e-5)


def test_the_learning_rate_warms_up_and_falls_to_a_tenth():
    config = Train(steps=1000, lr=2.0)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == pytest.approx(2.0, rel=0.03)
    assert rates[:100] == sorted(rates[:100]) and rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[500] == pytest.approx(2.0 * 0.55) and rates[-1] == pytest.approx(0.2, rel=1e-3)


# The loop


def interrupt_at(monkeypatch, step: int) -> None:
    def interrupted(at, *args):
        if at == step:
            raise KeyboardInterrupt
        return batch_at(at, *args)

    monkeypatch.setattr(training, "batch_at", interrupted)


@pytest.mark.parametrize(
    "kind", [{"role": "corrector"}, {"role": "upstream"}, {"method": "aligner"}, {"method": "antiexpert"}], ids=str
)
def test_a_killed_run_resumes_to_the_same_weights(kind, make_lm, tmp_path, monkeypatch):
    config = replace(CONFIG, **kind, batch=4)
    clean = fresh_lm(make_lm)
    wanted = train(clean, TASK, POOL, config, tmp_path / "clean")
    interrupt_at(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        train(fresh_lm(make_lm), TASK, POOL, config, tmp_path / "killed")
    monkeypatch.undo()
    met: list[int] = []
    monkeypatch.setattr(training, "batch_at", lambda at, *args: met.append(at) or batch_at(at, *args))
    other = fresh_lm(make_lm, seed=9)  # every weight must come from the state
    got = train(other, TASK, POOL, config, tmp_path / "killed")
    assert met == [4, 5, 6, 7]
    for name, w in clean.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], w), name
    assert got["loss"] == wanted["loss"] and got["trained_tokens"] == wanted["trained_tokens"]
    again = train(fresh_lm(make_lm, seed=9), TASK, POOL, config, tmp_path / "killed")
    assert met == [4, 5, 6, 7] and again["loss"] == wanted["loss"], "a finished run has no step left"


def test_training_learns_and_leaves_the_model_in_evaluation(make_lm, tmp_path):
    lm = fresh_lm(make_lm)
    config = replace(CONFIG, steps=40, save_every=40, batch=4, auxiliary=0.0)
    batch = batch_at(100, POOL, TASK, lm, config)
    before = loss_of(lm.model, batch).item()
    got = train(lm, TASK, POOL, config, tmp_path)
    assert loss_of(lm.model, batch).item() < before - 1 and not lm.model.training
    assert got["trained_tokens"] == sum(len(targets(batch_at(s, POOL, TASK, lm, config))) for s in range(40))


def test_the_state_is_safetensors_and_nothing_is_pickled(make_lm, tmp_path):
    lm = fresh_lm(make_lm)
    train(lm, TASK, POOL, CONFIG, tmp_path)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.name for p in files] == [STATE]
    assert_no_pickle(tmp_path)
    with safe_open(tmp_path / STATE, "pt") as f:
        names = [n for n, _ in lm.model.named_parameters()]
        assert set(f.keys()) == {f"{k}.{n}" for n in names for k in ("model", "exp_avg", "exp_avg_sq", "step")}
        assert f.metadata()["step"] == "8"


def assert_no_pickle(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert path.suffix not in {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy", ".joblib"}, path
        if path.is_file():
            head = path.read_bytes()[:4]
            assert not head.startswith((b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), path


def test_a_pickle_would_be_found(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "innocent.safetensors")
    with pytest.raises(AssertionError, match="innocent"):
        assert_no_pickle(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(value, make_lm, tmp_path):
    lm = fresh_lm(make_lm)
    lm.model.get_parameter("model.layers.0.mlp.down_proj.weight").data[0, 0] = value
    with pytest.raises(RuntimeError, match=r"loss is nan at step 0; lower lr \(now 0.01\)"):
        train(lm, TASK, POOL, CONFIG, tmp_path)
    assert not (tmp_path / STATE).exists()


def test_a_step_that_trains_nothing_stops_the_run(make_lm, tmp_path):
    with pytest.raises(UserError, match="step 0 draws no token to train on; raise batch"):
        train(fresh_lm(make_lm), Colours(own=False), POOL, replace(CONFIG, role="upstream"), tmp_path)
