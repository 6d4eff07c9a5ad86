"""The align loop against scripted models whose every sentence is known, and its command line."""

import copy
import json
import sys

import pytest
import torch
from transformers import LlamaForCausalLM

from corrector import align as align_module
from corrector.align import Align, align, run
from corrector.decoding import Decoder, decode
from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel
from corrector.prompts import template
from corrector.tasks.base import Problem
from corrector.training.tokenizers import bpe_tokenizer
from corrector.upstreams import LocalUpstream, ReplayUpstream, ReplayWriter, Request, ask
from corrector.upstreams import choice as upstreams_module
from steering.interventions import Intervention
from tests.toy_task import ToyTask

WRITTEN = {
    "a": ["Tom has 2 apples.", " Ann buys 3 bags.", "\n\nit is 2."],
    "b": ["Mia eats 2 apples.", " it is 7."],
    "c": ["Ann has 4 coins."],
}


class Sums(ToyTask):
    name, outcomes, max_sentence_tokens = "sums", ("correct",), 16

    def problems(self, split, n, seed=0):
        return [Problem(p, f"how many has Tom? {i}", "3") for i, p in enumerate(list(WRITTEN)[:n])]

    def grade(self, problem, answer):
        return {"correct": float("3" in answer), "unparsed": 0.0}


class Repair(torch.nn.Module):
    """A planted corrector: writes the tokens between <y1> and <y2>, each "2" as "3"; drops a sentence that has "4"."""

    def __init__(self, lm):
        super().__init__()
        self.config, self.tokenizer = lm.model.config, lm.tokenizer
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.prompts = []
        self.eval()

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        ids = self.tokenizer.convert_tokens_to_ids
        assert len(input_ids) == 1, "a script for one row"
        if input_ids.shape[1] > 1:
            row = input_ids[0].tolist()
            self.prompts.append(self.tokenizer.decode(row))
            last = row[row.index(ids("<y1>")) + 1 : row.index(ids("<y2>"))]
            fixed = [ids("3") if t == ids("2") else t for t in last]
            self.todo = [*([] if ids("4") in last else fixed), self.tokenizer.eos_token_id]
        logits = torch.zeros(1, 1, self.config.vocab_size)
        logits[0, 0, self.todo.pop(0)] = 1.0
        return type("Out", (), {"logits": logits})


@pytest.fixture
def repair(tiny_lm):
    return type(tiny_lm)(Repair(tiny_lm), tiny_lm.tokenizer, tiny_lm.template, "repair")


@pytest.fixture(scope="module")
def bytes_lm(tiny_lm):
    """Random models that can read whatever they write."""

    def make(seed):
        tokenizer = bpe_tokenizer([s for spans in WRITTEN.values() for s in spans], 300)
        config = copy.deepcopy(tiny_lm.model.config)
        config.vocab_size, config.eos_token_id = len(tokenizer), tokenizer.eos_token_id
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config).eval()
        return LanguageModel(model, tokenizer, tiny_lm.template, f"bytes-{seed}")

    return make


def answers(alignments):
    return {a.problem.id: a.answer for a in alignments}


def go(corrector, **options):
    return align(Sums().problems("test", 3), ReplayUpstream(WRITTEN), corrector, task=Sums(), batch_size=1, **options)


def test_the_answer_grows_by_corrections_and_keeps_the_space_between(repair):
    got = go(repair)
    assert answers(got) == {
        "a": "Tom has 3 apples. Ann buys 3 bags.\n\nit is 3.",
        "b": "Mia eats 3 apples. it is 7.",
        "c": "",
    }
    assert [a.stopped for a in got] == ["end", "end", "empty"]
    assert [a.outcomes["correct"] for a in got] == [1.0, 1.0, 0.0]
    first = got[0].rounds
    assert [(r.prefix, r.last, r.correction) for r in first] == [
        ("", "Tom has 2 apples.", "Tom has 3 apples."),
        ("Tom has 3 apples.", "Ann buys 3 bags.", "Ann buys 3 bags."),
        ("Tom has 3 apples. Ann buys 3 bags.", "it is 2.", "it is 3."),
    ]
    assert got[2].rounds[0].correction == ""


def test_the_corrector_reads_the_corrected_prefix(repair):
    go(repair)
    assert "<p>Tom has 3 apples.<y1>Ann buys 3 bags.<y2>" in " ".join(repair.model.prompts)


def test_rounds_bound_the_corrector_and_none_is_the_upstream(repair):
    one = go(repair, rounds=1)
    assert answers(one)["a"] == "Tom has 3 apples. Ann buys 3 bags.\n\nit is 2."
    assert [r.correction for r in one[0].rounds] == ["Tom has 3 apples.", None, None]
    alone = go(None, mode="upstream")
    assert answers(alone) == {k: "".join(v) for k, v in WRITTEN.items()}
    assert go(repair, rounds=0) == alone
    assert go(repair, rounds=99) == go(repair)


def test_bounds_stop_a_row_and_say_so(repair, bytes_lm):
    cut = go(repair, max_rounds=1)
    assert [a.stopped for a in cut] == ["rounds", "rounds", "empty"]
    upstream = LocalUpstream(bytes_lm(0), Sums())
    short = align(Sums().problems("test", 2), upstream, task=Sums(), mode="upstream", max_tokens=1)
    assert all(len(a.rounds) == 1 and a.stopped == "length" for a in short)


def test_a_prompt_beyond_the_correctors_window_stops_the_row(repair):
    long = {"a": ["Tom has 2 apples.", " it" * 600 + "."]}
    (got,) = align(Sums().problems("test", 1), ReplayUpstream(long), repair, task=Sums())
    assert (got.stopped, got.answer) == ("length", "Tom has 3 apples.")


def test_problems_together_equal_each_alone(bytes_lm):
    problems, corrector = Sums().problems("test", 3), bytes_lm(1)
    upstream = LocalUpstream(bytes_lm(0), Sums(), temperature=2.0, seed=3)
    together = align(problems, upstream, corrector, task=Sums(), max_rounds=3)
    assert sum(len(a.rounds) for a in together) >= 5
    for problem, wanted in zip(problems, together, strict=True):
        assert align([problem], upstream, corrector, task=Sums(), max_rounds=3) == [wanted]


def test_rows_of_one_call_are_steered_apart_as_in_separate_runs(bytes_lm):
    corrector = bytes_lm(1)
    problems = Sums().problems("test", 3)
    coefs = [0.0, 0.0, 0.0, 8.0, 8.0, 8.0]
    bank = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0))

    def steering(coefs):
        return Intervention(bank, [1], [0] * len(coefs), coefs, span="prompt_last+output")

    upstream = ReplayUpstream(WRITTEN)
    both = align([*problems, *problems], upstream, corrector, task=Sums(), steer=steering(coefs))
    plain = align(problems, upstream, corrector, task=Sums())
    steered = align(problems, upstream, corrector, task=Sums(), steer=steering([8.0] * 3))
    assert both == plain + steered
    assert answers(plain) != answers(steered)
    assert all(r.applied > 0 for a in steered for r in a.rounds)
    assert all(r.applied == 0 for a in both[:3] for r in a.rounds)


def test_loops_of_every_length_in_one_call_are_those_of_separate_calls(bytes_lm):
    problems, corrector = Sums().problems("test", 3), bytes_lm(1)
    upstream = LocalUpstream(bytes_lm(0), Sums(), temperature=2.0, seed=3)
    for mode in ("stream", "continue"):
        options = {"task": Sums(), "max_rounds": 4, "mode": mode}
        each = [k for _ in problems for k in (0, 1, 2, None)]
        got = align([p for p in problems for _ in range(4)], upstream, corrector, rounds=each, **options)
        for k, rounds in enumerate((0, 1, 2, None)):
            assert got[k::4] == align(problems, upstream, corrector, rounds=rounds, **options)
        assert len({tuple(a.answer for a in got[k::4]) for k in range(4)}) > 2
    with pytest.raises(UserError, match="rounds has 2 numbers for 3 problems"):
        align(problems, upstream, corrector, task=Sums(), rounds=[1, 2])


def test_equal_unsteered_corrections_are_made_once(bytes_lm, monkeypatch):
    problems, corrector, seen = Sums().problems("test", 2), bytes_lm(1), []
    submit = Decoder.submit
    monkeypatch.setattr(Decoder, "submit", lambda self, job: seen.append(job.prompt.ids) or submit(self, job))
    align([*problems] * 3, ReplayUpstream(WRITTEN), corrector, task=Sums(), rounds=[1, 1, 2, 2, None, None])
    assert len(seen) == len(set(seen)) >= 3


def test_continue_lets_the_corrector_finish_as_a_language_model(bytes_lm):
    task, corrector = Sums(), bytes_lm(1)
    problem = task.problems("test", 1)[0]
    got = align([problem], ReplayUpstream(WRITTEN), corrector, task=task, mode="continue", rounds=1, max_rounds=3)[0]
    assert got.rounds[0].correction is not None and len(got.rounds) == 3
    alone = LocalUpstream(corrector, task)
    for k in (1, 2):
        assert got.rounds[k].correction is None
        (span,) = ask(alone, [Request(problem, got.rounds[k].prefix, k)])
        assert span.strip() == got.rounds[k].last


def test_aligner_corrects_the_whole_answer_once(bytes_lm):
    task, corrector = Sums(), bytes_lm(1)
    problems = task.problems("test", 2)
    got = align(problems, ReplayUpstream(WRITTEN), corrector, task=task, mode="aligner", max_tokens=60)
    for problem, a in zip(problems, got, strict=True):
        whole = "".join(WRITTEN[problem.id]).strip()
        (output,) = decode(corrector, [corrector.encode(problem.question, "", whole)], max_new_tokens=60)
        assert [(r.prefix, r.last) for r in a.rounds] == [("", whole)]
        assert a.answer == a.rounds[0].correction == corrector.decode(list(output.ids))


def test_text_that_no_model_can_read_stops_its_row_and_a_bad_question_raises(repair):
    task, garbled = Sums(), {**WRITTEN, "a": ["Tom has 2 apples.", " Annbuys."]}
    got = align(task.problems("test", 2), ReplayUpstream(garbled), repair, task=task, batch_size=1)
    assert [(a.stopped, len(a.rounds)) for a in got] == [("unreadable", 1), ("end", 2)]
    writer = LocalUpstream(repair, task)
    with pytest.raises(UserError, match="zebra"):
        align([Problem("z", "zebra?")], writer, task=task, mode="upstream")
    with pytest.raises(UserError, match="zebra"):
        align([Problem("a", "zebra?")], ReplayUpstream(WRITTEN), repair, task=task)


def test_equal_requests_are_asked_once(monkeypatch):
    asked = []
    submit = ReplayWriter.submit
    monkeypatch.setattr(
        ReplayWriter, "submit", lambda self, r: asked.append((r.problem.id, r.round)) or submit(self, r)
    )
    problems = Sums().problems("test", 2) * 5
    align(problems, ReplayUpstream(WRITTEN), task=Sums(), mode="upstream")
    assert len(asked) == len(set(asked)) == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "stream"}, "needs a corrector"),
        ({"mode": "upstream", "steer": Intervention.of({0: torch.ones(2)}, 1.0)}, "no corrector to steer"),
        ({"mode": "upstream", "rounds": -1}, "rounds=-1"),
        ({"mode": "upstream", "max_rounds": 0}, "max_rounds=0"),
        ({"mode": "upstream", "max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_mistakes_are_named(options, said):
    with pytest.raises(UserError, match=said):
        align([], ReplayUpstream({}), task=Sums(), **options)


@pytest.fixture
def wired(monkeypatch, bytes_lm):
    """The command's `load` and `tasks.get` give tiny ones."""
    models = {"u": bytes_lm(0), "c": bytes_lm(1)}
    for module in (align_module, upstreams_module):
        monkeypatch.setattr(module, "load", lambda ref, *rest: models[ref])
    monkeypatch.setattr(align_module.tasks, "get", lambda name, data="": Sums())


def config(out, **changes):
    return Align(
        **{"upstream": "u", "corrector": "c", "problems": 3, "max_rounds": 2, "batch_size": 2, "out": out, **changes}
    )


def test_the_command_writes_rows_and_a_summary(wired, tmp_path, capsys):
    rows = run(config(tmp_path / "run"))
    lines = (tmp_path / "run" / "alignments.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert [row["problem"] for row in rows] == ["a", "b", "c"]
    assert {"task", "gold", "answer", "outcomes", "stopped", "rounds"} <= set(rows[0])
    assert set(rows[0]["rounds"][0]) == {"last", "correction", "ended"}
    assert (tmp_path / "run" / "DONE").exists()
    said = capsys.readouterr().out
    assert "correct" in said and "stopped by" in said and "copied" in said
    assert run(config(tmp_path / "run")) == rows


def test_a_killed_command_resumes_to_the_same_bytes(wired, tmp_path):
    run(config(tmp_path / "clean"))
    wanted = (tmp_path / "clean" / "alignments.jsonl").read_bytes()
    for n_kept in (1, 2):
        out = tmp_path / f"killed-{n_kept}"
        run(config(out))
        (out / "DONE").unlink()
        lines = wanted.splitlines(keepends=True)
        (out / "alignments.jsonl").write_bytes(b"".join(lines[:n_kept]) + lines[n_kept][:9])
        run(config(out))
        assert (out / "alignments.jsonl").read_bytes() == wanted


def test_a_mistake_on_the_command_line_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["align", "--task", "nothing"])
    with pytest.raises(SystemExit) as stop:
        run_cli(Align, run, "corrector.align")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nothing" in error


def test_the_plain_template_joins_losslessly(make_lm):
    lm = make_lm(template_name="plain", seed=2)
    assert lm.template == template("plain")
    (got,) = align(Sums().problems("test", 1), ReplayUpstream(WRITTEN), lm, task=Sums(), rounds=0)
    assert got.answer == "".join(WRITTEN["a"])
