"""A server as upstream: against one that fails in every way there is, and against `transformers serve`."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from transformers.utils.import_utils import is_serve_available

from corrector.align import Align, run
from corrector.annotators import make
from corrector.errors import UserError
from corrector.loop import align
from corrector.models import REFERENCES, load
from corrector.pipeline import Pipeline
from corrector.prompts import template
from corrector.records.kept import Kept
from corrector.sentences import split_lines
from corrector.servers.endpoint import Traffic
from corrector.tasks.base import Annotation, Problem
from corrector.upstreams import Choice, Request, Served, ServerUpstream, ask, upstream_of
from corrector.upstreams.served import tokenizer_of
from tests import toy_task
from tests.corrector.chat_server import Torn

QUICK = Traffic(concurrency=4, timeout=0.4, retries=2, backoff=0.01, longest_wait=0.2)
KEY = "sk-not-a-real-key-24680"
SAID = "Tom has 13.5 apples. Ann buys 3 bags. it is 7."
RUN = dict(task="arithmetic", corrector="arithmetic-s", problems=6, temperature=0.0, batch_size=3)


class Sums(toy_task.Sums):
    wanted = "7"


class Lines(Sums):
    def sentences(self, answer):
        return split_lines(answer)


def served(server, task=None, traffic=QUICK, kept=None, temperature=0.0, seed=0, **options):
    where = Served(server.url, "m", **options)
    tokenizer = tokenizer_of(where)
    return ServerUpstream(where, traffic, task or Sums(), temperature, seed, template("lab"), tokenizer, kept)


def request(prefix="", k=0, name="p0"):
    return Request(Problem(name, f"question {name}?"), prefix, k)


def told(server, *requests, **options):
    return ask(served(server, **options), requests or [request()])


def test_the_first_sentence_is_cut_here_and_no_more_is_read(faulty):
    server = faulty(lambda body: [SAID + " And so on." * 400])
    assert told(server) == ["Tom has 13.5 apples."]
    deadline = time.monotonic() + 5
    while server.wrote < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert server.wrote < 600  # of 1209 words: it noticed that nobody listens
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "prompt": "<q>question p0?<p>",
        "max_tokens": 28,
        "temperature": 0.0,
        "stream": True,
    }


def test_spaces_and_ends_are_what_the_server_wrote(faulty):
    texts = {"": SAID, "One.": "\n Two. Three.", "Two.": "", "Three.": "   ", "Four.": " Five\u2028and six. So."}
    server = faulty(lambda body: [texts[body["prompt"].partition("<p>")[2]]])
    got = told(server, *(request(prefix, k) for k, prefix in enumerate(texts)))
    assert got == ["Tom has 13.5 apples.", "\n Two.", "", "   ", " Five\u2028and six."]


def test_a_server_that_does_not_stream_is_read_whole(faulty):
    reply = json.dumps({"choices": [{"text": " " + SAID, "finish_reason": "stop"}]}).encode()
    assert told(faulty(lambda body: [reply])) == [" Tom has 13.5 apples."]


def test_faults_are_retried_and_a_torn_stream_is_no_answer(faulty):
    scripts = {
        "busy": [(429, {"Retry-After": "0.05"}), 503, "It is 1."],
        "broken": [500, "It is 2."],
        "late": ["hang", "It is 3."],
        "torn": [Torn("It is"), "It is 4."],
        "page": [b"<html>", b'{"choices": []}', "It is 5."],
        "whole": [Torn("It is 6. So it"), 500],
    }
    server = faulty(lambda body: next(s for name, s in scripts.items() if name in body["prompt"]))
    upstream = served(server)
    assert ask(upstream, [request(name=n) for n in scripts]) == [f"It is {i}." for i in (1, 2, 3, 4, 5, 6)]
    assert upstream.counts["retries"] == 7 and upstream.counts["ok"] == 6 and upstream.counts["retry_after"] == 1


def test_what_cannot_be_had_is_one_line_with_its_cure(faulty, tmp_path, monkeypatch):
    down = faulty(lambda body: [500] if "p1" in body["prompt"] else ["It is 1. So it is."])
    with pytest.raises(UserError, match=r"sentence 3 of problem 'p1' \(500, asked 3 times\); none is kept; when it is"):
        told(down, request("One. Two.", 2, "p1"))
    slow = Traffic(concurrency=1, retries=0)
    with pytest.raises(UserError, match=r"sentences kept in .*replies: 1; when"):
        told(down, request(), request("One.", 1, "p1"), traffic=slow, kept=Kept(tmp_path / "replies"))
    with pytest.raises(UserError, match=r"refuses sentence 1 of problem 'p0' .*400.*--upstream-server.extra"):
        told(faulty(lambda body: [400]))
    monkeypatch.setenv("LAB_KEY", KEY)
    refused = faulty(lambda body: [401])
    with pytest.raises(UserError, match=r"401.*--upstream-server.key-env") as error:
        told(refused, key_env="LAB_KEY")
    assert refused.headers[0]["Authorization"] == f"Bearer {KEY}" and KEY not in str(error.value)
    thinks = json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}).encode()
    with pytest.raises(UserError, match=r"think first.*--upstream-server.extra"):
        told(faulty(lambda body: [thinks]), api="chat-continue")
    with pytest.raises(UserError, match="ConnectError"):
        gone = faulty(lambda body: [500])
        gone.stop()
        monkeypatch.setattr(gone, "stop", lambda: None)
        told(gone, traffic=Traffic(retries=0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": ""}, "--upstream-server.url='' is no http url"),
        ({"model": ""}, "--upstream-server.model is empty"),
        ({"key_env": "LAB_ABSENT"}, "--upstream-server.key-env is not set"),
        ({"extra": "[1]"}, "no JSON object"),
        ({"extra": "{"}, "no JSON"),
        ({"template": "none"}, "template='none'"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(options, said, tmp_path):
    where = Served(**{"url": "http://127.0.0.1:1/v1", "model": "m"} | options)
    with pytest.raises(UserError, match=said):
        run(Align(upstream="server", upstream_server=where, out=tmp_path / "run", **RUN))
    assert not (tmp_path / "run").exists()


def test_other_commands_say_that_they_take_no_server():
    with pytest.raises(UserError, match="--upstream server is no choice here"):
        upstream_of(Choice("server"), Sums(), [])
    with pytest.raises(UserError, match="temperature=-1"):
        ServerUpstream(Served("http://x/v1", "m"), QUICK, Sums(), -1.0)


def test_a_full_window_ends_the_answer(faulty):
    full = (400, {}, b'{"error": {"message": "This model\'s maximum context length is 64 tokens."}}')
    server = faulty(lambda body: [full if "Tom has" in body["prompt"] else "Tom has pens. It is."])
    (got,) = align([Problem("p", "q?")], served(server), task=Sums(), mode="upstream")
    assert (got.stopped, got.answer) == ("length", "Tom has pens.")

    class Keeps:
        def annotate(self, sentences):
            return [Annotation(s.last) for s in sentences]

        def said(self):
            return ""

    (made,) = make([Problem("p", "q?")], served(server), Keeps())
    assert (made.stopped, made.prefix) == ("length", "Tom has pens.")


def test_draws_are_the_problems_and_rounds_own(faulty):
    server = faulty(lambda body: [SAID])
    asked = [request(), request("One.", 1), request(name="p1")]
    for seed in (0, 0, 1):
        told(server, *asked, temperature=0.7, seed=seed, traffic=Traffic(concurrency=1))
    seeds = [body["seed"] for body in server.bodies]
    assert {body["temperature"] for body in server.bodies} == {0.7}
    assert seeds[:3] == seeds[3:6] and len({*seeds}) == 6 and all(0 <= s < 2**31 for s in seeds)


def test_stop_strings_are_cut_whether_kept_or_not(faulty):
    texts = {"One.": "\n\nQuestion: What", "Two.": "", "Three.": " Four.\n\nQuestion:"}
    server = faulty(lambda body: [texts[body["prompt"].partition("<p>")[2]]])
    upstream = served(server, stop=("\n\nQuestion:",))
    assert ask(upstream, [request(p, k) for k, p in enumerate(texts)]) == ["", "", " Four."]
    assert server.bodies[0]["stop"] == ["\n\nQuestion:"]


def test_chat_goes_on_behind_the_answer_so_far(faulty):
    server = faulty(lambda body: ["Then 3. So."])
    alone = Traffic(concurrency=1)
    with pytest.warns(UserWarning, match="nothing guarantees"):
        assert told(server, request("One.", 1), api="chat") == [" Then 3."]
    assert told(server, request("One.", 1), request(), api="chat-continue", extra='{"top_k": 5}', traffic=alone) == [
        " Then 3.",
        "Then 3.",
    ]
    assert told(server, request("1 + 1 = 2", 1), task=Lines(), api="chat-continue") == ["\nThen 3. So."]
    plain, further, first, _ = server.bodies
    turns = [{"role": "user", "content": "question p0?"}, {"role": "assistant", "content": "One."}]
    assert plain["messages"] == further["messages"] == turns and first["messages"] == turns[:1]
    flags = ("add_generation_prompt", "continue_final_message", "top_k")
    assert [further.get(f) for f in flags] == [False, True, 5]
    assert [plain.get(f) for f in flags] == [None] * 3 and [first.get(f) for f in flags] == [None, None, 5]
    with pytest.warns(UserWarning, match="begins anew"):
        told(server, request("Then 3. Now 4.", 2), api="chat-continue")


def test_tokens_are_counted_by_the_tokenizer_or_by_characters(faulty, tiny_lm, tmp_path):
    server = faulty(lambda body: [SAID])
    assert served(server).fits(request("a" * 39), 10) and not served(server).fits(request("a" * 40), 10)
    tiny_lm.tokenizer.save_pretrained(tmp_path)
    n = len(tiny_lm.tokenizer(SAID)["input_ids"])
    known = served(server, tokenizer=str(tmp_path))
    assert known.fits(request(SAID), n + 1) and not known.fits(request(SAID), n)
    with pytest.raises(UserError, match=r"--upstream-server.tokenizer"):
        served(server, tokenizer=str(tmp_path / "none")).fits(request(SAID), 9)


def test_a_begin_token_that_the_server_adds_is_not_sent_twice(faulty, tiny_lm):
    class Begins:
        bos_token, bos_token_id = "<q>", 3

        def __call__(self, text):
            return {"input_ids": [3, 9]}

    server = faulty(lambda body: [SAID])
    for tokenizer, extra in ((None, ""), (Begins(), ""), (Begins(), '{"add_special_tokens": false}')):
        where = Served(server.url, "m", extra=extra)
        ask(ServerUpstream(where, QUICK, Sums(), template=template("lab"), tokenizer=tokenizer), [request()])
    whole = "<q>question p0?<p>"
    assert [body["prompt"] for body in server.bodies] == [whole, whole.removeprefix("<q>"), whole]


def test_kept_sentences_are_not_asked_again_and_hold_no_key(faulty, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_KEY", KEY)
    server, moved = (faulty(lambda body: [f"It is 1. {KEY}"]) for _ in range(2))
    for where in (server, moved):
        upstream = served(where, kept=Kept(tmp_path), key_env="LAB_KEY")
        assert ask(upstream, [request(), request("One.", 1)]) == ["It is 1.", "It is 1."]
    assert (server.n, moved.n, upstream.counts["kept"]) == (2, 0, 2)
    files = [f.read_text() for f in tmp_path.rglob("*.json")]
    assert len(files) == 2 and KEY not in "".join(files) and "127.0.0.1" not in "".join(files)


def test_the_corrector_works_while_requests_are_out(faulty, tiny_lm):
    def script(body):
        slow = "Tom? 0<p>" in body["prompt"] and body["prompt"].endswith("<p>")
        return ["slow is it. it has." if slow else SAID]

    server = faulty(script)
    problems = Sums().problems("test", 2)
    lm = type(tiny_lm)(tiny_lm.model, tiny_lm.tokenizer, tiny_lm.template, "tiny")
    got = align(problems, served(server, traffic=Traffic(concurrency=2)), lm, task=Sums(), max_rounds=3)
    assert len(got) == 2 and server.most == 2
    of = [int("Tom? 1" in body["prompt"]) for body in server.bodies]
    assert of[: 1 + sum(of)].count(0) == 1  # problem 1 is through before problem 0 has its first sentence


def test_stations_take_turns_by_what_a_step_would_do():
    class Station:
        def __init__(self, load, state):
            self.load, self.state = load, state

    pipeline = object.__new__(Pipeline)
    pipeline.decoder = Station(2, None)
    few, many = Station(1, "works"), Station(9, "works")
    waits, come = Station(99, "waits"), Station(1, "answered")
    turn = pipeline._turn
    assert turn([few, pipeline.decoder, waits, come], few) is come
    assert turn([few, pipeline.decoder, waits], few) is few
    assert turn([many, pipeline.decoder, waits], pipeline.decoder) is many
    assert turn([pipeline.decoder, waits], waits) is pipeline.decoder
    assert turn([waits], few) is waits


def test_concurrency_is_bounded(faulty):
    server = faulty(lambda body: ["slow."])
    told(server, *(request(name=f"p{i}") for i in range(6)), traffic=Traffic(concurrency=2))
    assert server.most == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The arithmetic upstream in float32, as a server loads it and as it is loaded here."""
    path = tmp_path_factory.mktemp("served") / "model"
    lm = load("arithmetic-upstream")
    lm.model.to(torch.float32).save_pretrained(path)
    lm.tokenizer.save_pretrained(path)
    shutil.copy(REFERENCES / "arithmetic-upstream" / "card.json", path)
    return path


class Serve:
    """`transformers serve` of a folder; it listens when it is made, and again after `start`."""

    def __init__(self, folder, home):
        self.folder, self.home = folder, home
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        (home / "hub").mkdir(parents=True)
        self.start()

    def start(self):
        command = [Path(sys.executable).with_name("transformers"), "serve", self.folder, "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32"]
        environment = {**os.environ, "HF_HOME": str(self.home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        log = (self.home / "log").open("ab")
        self.process = subprocess.Popen(list(map(str, command)), env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError((self.home / "log").read_text()[-2000:])

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def serve(folder, tmp_path_factory):
    if not is_serve_available():
        pytest.skip("transformers serve is not installed; pip install 'transformers[serving]' runs this test")
    patch = pytest.MonkeyPatch()
    patch.setenv("NO_PROXY", "127.0.0.1")
    server = Serve(folder, tmp_path_factory.mktemp("hf"))
    yield server
    server.kill()
    patch.undo()


def answers(rows):
    return [(r["problem"], r["answer"], r["stopped"], r["rounds"], r["outcomes"]) for r in rows]


@pytest.fixture(scope="module")
def local_rows(folder, tmp_path_factory):
    return run(Align(upstream=str(folder), out=tmp_path_factory.mktemp("local") / "run", **RUN))


def test_the_loop_over_transformers_serve_writes_what_the_local_upstream_does(serve, folder, local_rows, tmp_path):
    where = Served(serve.url, str(folder))
    rows = run(Align(upstream="server", upstream_server=where, out=tmp_path / "run", **RUN))
    assert answers(rows) == answers(local_rows)
    assert sum(len(r["rounds"]) for r in rows) > 12 and {r["stopped"] for r in rows} == {"end"}


def test_a_server_killed_in_mid_run_costs_nothing(serve, folder, local_rows, tmp_path, capsys):
    out = tmp_path / "run"
    traffic = Traffic(concurrency=1, retries=1, backoff=0.05)
    config = Align(upstream="server", upstream_server=Served(serve.url, str(folder)), traffic=traffic, out=out, **RUN)
    stop = threading.Event()

    def kill():
        while not stop.is_set() and len(list((out / "replies").rglob("*.json"))) < 15:
            time.sleep(0.002)
        serve.kill()

    watcher = threading.Thread(target=kill)
    watcher.start()
    try:
        with pytest.raises(
            UserError, match=r"does not give sentence .* kept in .*replies: [0-9]+; .*the same command goes on"
        ):
            run(config)
    finally:
        stop.set()
        watcher.join()
    n = len(list((out / "replies").rglob("*.json")))
    assert n >= 15 and not (out / "DONE").exists()
    serve.start()
    rows = run(config)
    assert answers(rows) == answers(local_rows)
    assert len({r["problem"] for r in rows}) == len(rows) == RUN["problems"]
    said = capsys.readouterr().out
    asked = len(list((out / "replies").rglob("*.json"))) - n
    assert f"requests {asked}, retries 0" in said and asked > 0
