"""The command: prefixes grow by corrections, faults are left out, runs resume, and what is made trains."""

import gzip
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from corrector import annotate as annotate_module
from corrector import tasks
from corrector.annotate import Annotate, run
from corrector.annotators import Dropped, RuleAnnotator, Sentence, make, read_instruction
from corrector.annotators.questions import Questions
from corrector.annotators.replies import request
from corrector.decoding import Output
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.servers.chat import Server, Traffic
from corrector.tasks.base import Annotation, Problem
from corrector.tasks.jsonl import load_pairs
from corrector.train import Train
from corrector.train import run as train
from corrector.upstreams import ReplayUpstream

WRITTEN = {
    "a": ["One is bad.", " Two is good.", "\nThree is bad."],
    "b": ["Four is bad.", " Five is odd.", " Six is good."],
    "c": ["Seven is good."],
}
PROBLEMS = [Problem(name, f"question {name}?", "3") for name in WRITTEN]
QUICK = Traffic(concurrency=4, timeout=5.0, retries=1, backoff=0.01)
KEY = "sk-not-a-real-key-98765"


class Scripted:
    """Makes good of bad; `said` overrides by sentence."""

    def __init__(self, **said):
        self.said_of, self.seen = said, []

    def annotate(self, sentences):
        self.seen += sentences
        return [
            self.said_of.get(s.last.split()[0], Annotation(s.last.replace("bad", "better"), None, "script"))
            for s in sentences
        ]

    def said(self):
        return ""


def test_the_prefix_grows_by_the_corrections():
    annotator = Scripted()
    a, b, c = make(PROBLEMS, ReplayUpstream(WRITTEN), annotator)
    assert [(r["prefix"], r["last"], r["correction"], r["eos"]) for r in a.rounds] == [
        ("", "One is bad.", "One is better.", False),
        ("One is better.", "Two is good.", "Two is good.", False),
        ("One is better. Two is good.", "Three is bad.", "Three is better.", True),
    ]
    assert a.prefix == "One is better. Two is good.\nThree is better."
    assert (a.stopped, b.stopped, c.stopped, len(c.rounds)) == ("end", "end", "end", 1)
    assert [s.round for s in annotator.seen] == [0, 0, 0, 1, 1, 2, 2]


def test_what_stops_an_answer_is_said():
    said = {
        "Two": Annotation("Two.", None, "s", True),
        "Five": Dropped("unparsed"),
        "Seven": Annotation("", None, "s", False),
    }
    a, b, c = make(PROBLEMS, ReplayUpstream(WRITTEN), Scripted(**said))
    assert (a.stopped, len(a.rounds), a.rounds[-1]["eos"]) == ("eos", 2, True)
    assert (b.stopped, b.dropped, len(b.rounds), b.rounds[0]["eos"]) == ("dropped", "unparsed", 1, False)
    assert (c.stopped, c.dropped, c.rounds) == ("dropped", "empty", [])
    (short, *_) = make(PROBLEMS, ReplayUpstream(WRITTEN), Scripted(), max_rounds=1)
    assert short.stopped == "rounds" and short.rounds[0]["eos"] is False


class Words(tasks.Task):
    name, outcomes, max_sentence_tokens, upstream = "words", ("correct",), 16, "replay"

    def problems(self, split, n, seed=0):
        return PROBLEMS[:n]

    def size(self, split):
        return len(PROBLEMS)

    def example(self, problem, rng):
        raise NotImplementedError

    def grade(self, problem, answer):
        raise NotImplementedError

    def is_right(self, pair, sentence):
        return None

    def well_formed(self, pair, sentence):
        return True

    def recorded(self, problem, seed):
        return WRITTEN[problem.id]


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setattr(annotate_module.tasks, "get", lambda name, data="": Words())


def reply(body):
    """A server that corrects by the format, but for the sentences named in `odd`."""
    last = re.search(r"\[Next sentence\]\n(.*)\n\[end", body["messages"][1]["content"])[1]
    return last, [f"so\nCORRECTION: [[{last.replace('bad', 'better')}]]\nEOS: [[FALSE]]"]


def config(server, out, **options):
    return Annotate(
        "jsonl", problems=3, annotator="server", server=Server(server.url, "m"), traffic=QUICK, out=out, **options
    )


def pairs(out):
    return [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]


def test_a_server_annotates_and_nothing_is_paid_twice(words, faulty, tmp_path, capsys):
    odd = {"Five": ["I would leave it"], "Seven": [(429, {"Retry-After": "0"}), 500], "Two": [b"<html>", None]}

    def script(body):
        last, fine = reply(body)
        answers = odd.get(last.split()[0], fine)
        return [fine[0] if a is None else a for a in answers]

    server, out = faulty(script), tmp_path / "run"
    run(config(server, out))
    n = server.n
    assert n == 7 - 1 + 2  # "Six" is never reached; "Seven" and "Two" are asked twice
    said = capsys.readouterr().out
    assert "1 answers wait" in said and "unparsed 1" in said and "requests 8, retries 2, retry-after 1" in said
    assert not (out / "DONE").exists() and not (out / "pairs.jsonl").exists()
    del odd["Seven"]
    run(config(server, out))
    assert server.n == n + 1 and (out / "DONE").exists()
    run(config(server, out))
    assert server.n == n + 1
    got = pairs(out)
    assert [(p["problem"], p["round"], p["correction"]) for p in got] == [
        ("a", 0, "One is better."),
        ("a", 1, "Two is good."),
        ("a", 2, "Three is better."),
        ("b", 0, "Four is better."),
        ("c", 0, "Seven is good."),
    ]
    assert {p["is_wrong"] for p in got} == {None} and {p["source"] for p in got} == {"server/m"}
    assert [p.last for p in load_pairs(out / "pairs.jsonl")] == [p["last"] for p in got]
    statistics = json.loads((out / "statistics.json").read_text())
    assert statistics["dropped"] == {"unparsed": 1} and statistics["all"]["copy"]["mean"] == 0.4


def test_failed_answers_can_be_left_out(words, faulty, tmp_path, capsys):
    server = faulty(lambda body: [500] if "question b" in body["messages"][1]["content"] else reply(body)[1])
    run(config(server, tmp_path / "run", drop_failed=True))
    assert (tmp_path / "run" / "DONE").exists() and {p["problem"] for p in pairs(tmp_path / "run")} == {"a", "c"}
    assert "sentences left out: failed 1" in capsys.readouterr().out


def test_out_of_order_work_ends_in_the_same_bytes(words, faulty, tmp_path):
    down = {"a": True}

    def script(body):
        text = body["messages"][1]["content"]
        return [500] if down["a"] and "question a" in text and "Two" in text else reply(body)[1]

    server = faulty(script)
    run(config(server, tmp_path / "run", batch_size=1))
    down["a"] = False
    n = server.n
    run(config(server, tmp_path / "run", batch_size=1))
    assert server.n == n + 2  # only what comes from the failed sentence on
    run(config(server, tmp_path / "clean", batch_size=1))
    for name in ("annotations.jsonl", "pairs.jsonl", "statistics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


def test_the_key_and_what_models_write_stay_where_they_belong(words, faulty, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAB_KEY", KEY)
    server = faulty(lambda body: [f"CORRECTION: [[[bold]{KEY}[/nope]]]\nEOS: [[TRUE]]"])
    made = Annotate(
        "jsonl",
        problems=1,
        annotator="server",
        server=Server(server.url, "[red]m[/nope]", key_env="LAB_KEY"),
        traffic=QUICK,
        out=tmp_path / "run",
    )
    run(made)
    assert server.headers[0]["Authorization"].endswith(KEY)
    files = [f.read_text() for f in (tmp_path / "run").rglob("*") if f.is_file()]
    assert KEY not in "".join(files) + "".join(capsys.readouterr())
    assert pairs(tmp_path / "run")[0]["correction"] == "[bold][key][/nope]"


def test_no_pairs_at_all_is_an_error(words, faulty, tmp_path):
    server = faulty(lambda body: ["nothing of the kind"])
    with pytest.raises(UserError, match="unparsed 3"):
        run(config(server, tmp_path / "run"))


def test_mistakes_are_named(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(
        "".join(
            json.dumps({"question": f"q{i}", "prefix": "", "last": "a", "correction": "b"}) + "\n" for i in range(40)
        )
    )
    for made, said in (
        (Annotate("jsonl", str(file), problems=1), "choose --annotator model or server"),
        (Annotate("dialogue", problems=1, annotator="model"), "needs a model"),
        (Annotate("dialogue", problems=0), "--problems 1"),
        (Annotate("dialogue", problems=1, annotator="server"), "server.url"),
    ):
        with pytest.raises(UserError, match=said):
            run(made)


def test_a_corrector_annotates_by_its_own_template(tmp_path):
    out = tmp_path / "run"
    got = run(Annotate("dialogue", problems=4, annotator="model", model="dialogue", max_rounds=2, out=out))
    assert got["pairs"] >= 4 and {p["source"] for p in pairs(out)} == {"model/dialogue"}
    assert 0 < got["all"]["copy"]["mean"] <= 1 and not got["dropped"]


class Says(LanguageModel):
    """Decodes a number to a reply that was written for it."""

    def decode(self, ids):
        return ["CORRECTION: [[better]]\nEOS: [[TRUE]]", "better", "CORRECTION: [[x]]\nEOS: [[TRUE]] ?"][ids[0]]


def test_an_instructed_model_is_read_as_strictly_as_a_server(words, tmp_path, make_lm, monkeypatch):
    texts = ["\n\n".join(request(read_instruction(Path()), Sentence(p, "", WRITTEN[p.id][0], 0))) for p in PROBLEMS]
    lm = make_lm(texts=texts)
    says, asked = Says(lm.model, lm.tokenizer, lm.template, "m"), []

    def decode(lm, prompts, **_):
        asked.extend(lm.tokenizer.decode(p.ids) for p in prompts)
        return [Output((i,), True) for i in range(len(prompts))]

    monkeypatch.setattr(annotate_module, "load", lambda *_: says)
    monkeypatch.setattr("corrector.annotators.model.decode", decode)
    monkeypatch.setattr("corrector.annotators.model.fits_window", lambda *_: True)
    made = Annotate("jsonl", problems=3, annotator="model", model="m", out=tmp_path / "run")
    got = run(made)
    assert got["dropped"] == {"unparsed": 2}
    assert [(p["correction"], p["eos"]) for p in pairs(tmp_path / "run")] == [("better", True)]
    assert asked == [f"{text}\n\n" for text in texts]
    monkeypatch.setattr("corrector.annotators.model.fits_window", lambda *_: False)
    with pytest.raises(UserError, match="too long 3"):
        run(replace(made, out=tmp_path / "long"))


def test_bare_questions_are_annotated_too(tmp_path, faulty):
    file = tmp_path / "hh.jsonl.gz"
    turns = "\n\nHuman: How can I bake a cake?\n\nAssistant: Well.\n\nHuman: And then?"
    rows = [{"chosen": turns, "rejected": ""}, {"prompt": "how can I  bake a cake?"}, {"question": "Why?"}]
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    questions = Questions(file)
    assert {p.question for p in questions.problems("train", 2)} == {"How can I bake a cake?", "Why?"}
    assert questions.dropped == 1
    with pytest.raises(UserError, match="--upstream"):
        run(Annotate(questions=file, problems=1))
    with pytest.raises(UserError, match="choose --annotator model or server"):
        run(Annotate(questions=file, problems=1, upstream="dialogue-upstream"))
    for bad in ('{"text": "a"}', "[1]", "{", '{"question": " "}', ""):
        file.write_text(bad)
        with pytest.raises(UserError, match=r"hh\.jsonl"):
            Questions(file)


def test_rules_make_pairs_that_train(tmp_path):
    out = tmp_path / "run"
    got = run(Annotate("arithmetic", problems=40, temperature=1.0, out=out))
    again = run(Annotate("arithmetic", problems=40, temperature=1.0, out=tmp_path / "again", batch_size=7))
    assert again == got
    made = pairs(out)
    assert {"question", "prefix", "last", "correction", "is_wrong", "eos", "source", "solution"} <= set(made[0])
    task, sources = tasks.get("arithmetic"), Counter(p["is_wrong"] for p in made)
    assert min(sources[True], sources[False]) > 10
    for pair in load_pairs(out / "pairs.jsonl"):
        assert task.is_right(pair, pair.correction)
    checkpoint = train(
        Train(
            task="jsonl",
            data=str(out / "pairs.jsonl"),
            d=32,
            layers=1,
            heads=2,
            ff=32,
            steps=2,
            batch=2,
            evaluate=0,
            out=tmp_path / "model",
        )
    )
    assert (Path(checkpoint) / "model.safetensors").exists()


def test_the_rule_annotator_draws_by_problem_and_round():
    task = tasks.get("dialogue")
    problems = task.problems("train", 3)
    written = {p.id: [task.example(p, random.Random(0)).steps[0].branches[0].last] for p in problems}
    together = make(problems, ReplayUpstream(written), RuleAnnotator(task))
    alone = [make([p], ReplayUpstream(written), RuleAnnotator(task))[0] for p in problems]
    assert [m.rounds for m in together] == [m.rounds for m in alone]
