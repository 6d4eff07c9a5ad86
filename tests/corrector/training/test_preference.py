"""DPO by trl: whole rows, the loss of the paper, and a model that comes to prefer the corrected answers."""

import math
import random
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import logsigmoid

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.recipes import Train
from corrector.tasks.base import Example, Pair, Problem, Split, Step
from corrector.training import preference
from corrector.training.preference import check_rows, prefer, preference_rows
from tests.toy_task import ToyTask

pytest.importorskip("trl")


@dataclass(frozen=True)
class Counting(ToyTask):
    """Tom has apples; the corrected answer says coins, one answer in three needs no correction."""

    name: ClassVar[str] = "counting"
    outcomes: ClassVar[tuple[str, ...]] = ("correct",)

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        return [Problem(str(i), f"how many {i}?") for i in range(n)]

    def size(self, split: Split) -> int:
        return 9

    def example(self, problem: Problem, rng: random.Random) -> Example:
        good = f"Tom has {problem.id} coins."
        bad = rng.choice([good, f"Ann has {problem.id} apples.", f"Ann sells {problem.id} apples."])
        pair = Pair(problem.id, problem.question, "", bad, good, bad != good)
        return Example(problem, (Step("", (pair,), good),))


TASK = Counting()
POOL = TASK.problems("train", 9)
CONFIG = Train(method="dpo", steps=6, batch=4, lr=1e-3, init="some-upstream")


@pytest.fixture
def lm(make_lm) -> LanguageModel:
    fresh = make_lm(n_layers=1)
    fresh.model.requires_grad_(True)
    return fresh


def logp(model, lm: LanguageModel, prompt: str, answer: str) -> torch.Tensor:
    """The summed log-probability of an answer and its end token, one row, no padding."""
    start = lm.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [*lm.tokenizer(prompt + answer, add_special_tokens=False)["input_ids"], lm.eos_id]
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logps[i - 1, ids[i]] for i in range(len(start), len(ids)))


def test_rows_are_every_question_of_the_run_in_order(lm):
    rows = preference_rows(lm, TASK, POOL, CONFIG)
    assert len(rows) == 24 and rows == preference_rows(lm, TASK, POOL, replace(CONFIG, nll=0.0))
    for row in rows:
        assert row["prompt"].startswith("<q>how many") and row["prompt"].endswith("?<p>")
        assert row["chosen"].startswith("Tom has") and row["rejected"].split()[0] in ("Tom", "Ann")


def test_it_learns_to_prefer_and_counts_what_it_trained_on(lm, tmp_path):
    before, start = lm.fingerprint, {k: w.clone() for k, w in lm.model.state_dict().items()}
    rows = preference_rows(lm, TASK, POOL, replace(CONFIG, steps=40))
    got = prefer(lm, TASK, POOL, replace(CONFIG, steps=40), tmp_path)
    tied = sum(r["chosen"] == r["rejected"] for r in rows)
    assert got["no_preference"] == tied and 0 < tied < len(rows)
    n_tokens = [len(lm.tokenizer(r[k])["input_ids"]) + 1 for r in rows for k in ("chosen", "rejected")]
    assert got["trained_tokens"] == sum(n_tokens) and math.isfinite(got["loss"]) and not lm.model.training
    assert LanguageModel(lm.model, lm.tokenizer, lm.template, "again").fingerprint != before
    row = next(r for r in rows if r["chosen"] != r["rejected"])
    after = logp(lm.model, lm, row["prompt"], row["chosen"]) - logp(lm.model, lm, row["prompt"], row["rejected"])
    lm.model.load_state_dict(start)
    then = logp(lm.model, lm, row["prompt"], row["chosen"]) - logp(lm.model, lm, row["prompt"], row["rejected"])
    assert after > then + 1
    assert lm.model(input_ids=torch.tensor([[3, 4]])).logits.shape[-1] == len(lm.tokenizer), "forward is not patched"
    assert not [p for p in tmp_path.rglob("*") if p.is_file()], "nothing is written, so nothing is pickled"


@pytest.mark.parametrize("nll", [0.0, 0.5])
def test_the_first_loss_is_that_of_the_paper(nll, lm, tmp_path, monkeypatch):
    """At the start policy and reference agree: log 2, and the chosen answers' mean nats a token."""
    monkeypatch.setattr(preference, "LOG_EVERY", 1)
    config = replace(CONFIG, steps=1, nll=nll)
    rows = preference_rows(lm, TASK, POOL, config)
    n = [len(lm.tokenizer(r["chosen"])["input_ids"]) + 1 for r in rows]
    mean = -sum(float(logp(lm.model, lm, r["prompt"], r["chosen"])) for r in rows) / sum(n)
    got = prefer(lm, TASK, POOL, config, tmp_path)
    assert got["loss"] == pytest.approx(math.log(2) + nll * mean, rel=1e-3)


def test_a_later_loss_is_that_of_the_paper(lm, tmp_path, monkeypatch):
    """The second step's loss from the weights before it, against those of the start, by hand."""
    from trl import DPOTrainer

    monkeypatch.setattr(preference, "LOG_EVERY", 1)
    monkeypatch.setattr(preference, "WARM_UP", 0)
    states: list[dict[str, torch.Tensor]] = []
    training_step = DPOTrainer.training_step

    def watched(self, *args, **kwargs):
        states.append({k: w.clone() for k, w in self.model.state_dict().items()})
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(DPOTrainer, "training_step", watched)
    config = replace(CONFIG, steps=2, nll=0.0, lr=0.02, beta=0.3)
    got = prefer(lm, TASK, POOL, config, tmp_path)
    ratios: list[list[float]] = []
    for state in states:
        lm.model.load_state_dict(state)
        second = preference_rows(lm, TASK, POOL, config)[4:]
        ratios.append(
            [
                float(logp(lm.model, lm, r["prompt"], r["chosen"]) - logp(lm.model, lm, r["prompt"], r["rejected"]))
                for r in second
            ]
        )
    margin = 0.3 * (torch.tensor(ratios[1]) - torch.tensor(ratios[0]))
    assert margin.abs().max() > 0.1
    assert got["loss"] == pytest.approx(-logsigmoid(margin).mean().item(), rel=2e-3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda rows: rows[:-1], "trl kept 3 of 4 preference rows; none may be dropped"),
        (lambda rows: [rows[0] | {"chosen_ids": rows[0]["chosen_ids"][:-1]}, *rows[1:]], "cut or changed the chosen"),
        (lambda rows: [*rows[:3], rows[3] | {"prompt_ids": rows[3]["prompt_ids"][1:]}], "cut or changed the chosen"),
        (lambda rows: [*rows[:2], rows[2] | {"rejected_ids": [5]}, rows[3]], "cut or changed the rejected"),
    ],
)
def test_a_row_that_is_dropped_or_cut_is_an_error(fault, message, lm):
    texts = preference_rows(lm, TASK, POOL, replace(CONFIG, steps=1))

    def ids(text):
        return lm.tokenizer(text, add_special_tokens=False)["input_ids"]

    rows = [
        {"prompt_ids": ids(t["prompt"])} | {f"{k}_ids": [*ids(t[k]), lm.eos_id] for k in ("chosen", "rejected")}
        for t in texts
    ]
    assert check_rows(lm, texts, rows) == sum(len(r[f"{k}_ids"]) for r in rows for k in ("chosen", "rejected"))
    with pytest.raises(RuntimeError, match=message):
        check_rows(lm, texts, fault(rows))


def test_trl_itself_would_cut_long_rows_and_that_is_seen(lm, tmp_path, monkeypatch):
    """With max_length set trl drops rows whose prompt fills it, without a word."""
    from trl.trainer import dpo_config

    class Short(dpo_config.DPOConfig):
        def __init__(self, **settings):
            super().__init__(**settings | {"max_length": 6})

    monkeypatch.setattr(dpo_config, "DPOConfig", Short)
    with pytest.raises(RuntimeError, match=r"trl (kept \d+ of 24 preference rows|cut or changed)"):
        prefer(lm, TASK, POOL, CONFIG, tmp_path)


def test_nothing_is_told_to_the_hub(lm, tmp_path, monkeypatch):
    import trl.trainer.base_trainer as base

    told: list[tuple] = []
    monkeypatch.setattr(base, "send_telemetry", lambda *a, **k: told.append(a))
    prefer(lm, TASK, POOL, replace(CONFIG, steps=1), tmp_path)
    assert told == []


def test_without_trl_the_extra_is_named(lm, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl.trainer.dpo_config", None)
    with pytest.raises(UserError, match=r"needs trl; pip install 'corrector-lab\[dpo\]'"):
        prefer(lm, TASK, POOL, CONFIG, tmp_path)
