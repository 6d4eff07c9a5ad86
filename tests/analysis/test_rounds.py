"""Outcomes by corrected rounds: a run whose numbers are known, and the command itself at a small size."""

import json

import pytest

from analysis import loops
from analysis.rounds import load_answers, rounds_statistics, values
from corrector.errors import UserError
from corrector.servers.endpoint import Traffic
from corrector.upstreams import Served
from tests.corrector.chat_server import Faulty


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Six problems of arithmetic, k = 0, 1 and all, by the command's own loop."""
    out = tmp_path_factory.mktemp("runs") / "rounds"
    loops.run(loops.Rounds(task=("arithmetic",), corrector=("arithmetic-s",), rounds=1, problems=6, out=out))
    return out


def test_a_finished_run_has_every_problem_at_every_k_and_runs_again_to_the_same_bytes(finished):
    rows, about = load_answers(finished)
    assert {row["k"] for row in rows} == {0, 1, None} and len(rows) == 18
    assert about[0]["corrector"] == "arithmetic-s"
    before = (finished / "answers.jsonl").read_bytes()
    loops.run(loops.Rounds(task=("arithmetic",), corrector=("arithmetic-s",), rounds=1, problems=6, out=finished))
    assert (finished / "answers.jsonl").read_bytes() == before


def test_gains_are_means_of_paired_differences(finished):
    rows, _ = load_answers(finished)
    by_k = values(rows, "correct")
    found = {(p["k"], p["outcome"]): p for p in rounds_statistics(finished)["points"]}
    for k, own in by_k.items():
        point = found[k, "correct"]
        assert point["n"] == 6 and point["mean"] == pytest.approx(own.mean(), abs=1e-5)
        assert point["gain"] == pytest.approx((own - by_k[0]).mean(), abs=1e-5)
        assert point["wins"] - point["losses"] == pytest.approx(6 * point["gain"], abs=1e-4)
        assert point["omega"] == pytest.approx(point["gain"])


def test_an_unfinished_run_and_a_missing_answer_are_refused(finished, tmp_path):
    (tmp_path / "answers.jsonl").write_text(json.dumps({"k": 0}) + "\n")
    with pytest.raises(UserError, match="no finished run"):
        load_answers(tmp_path)
    rows, _ = load_answers(finished)
    with pytest.raises(UserError, match="lacks an answer"):
        values(rows[:-1], "correct")


@pytest.fixture
def faulty(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Faulty(lambda body: ["" if "is 7." in body["prompt"] else " It is 7. And"])
    yield server
    server.stop()


def test_a_server_writes_the_answers_and_is_asked_for_nothing_twice(faulty, tmp_path):
    """Its sentence at every k, kept in the run's folder, and named in the record."""
    config = loops.Rounds(
        task=("arithmetic",),
        corrector=("arithmetic-s",),
        rounds=1,
        problems=2,
        upstream="server",
        upstream_server=Served(faulty.url, "m"),
        traffic=Traffic(retries=1, backoff=0.01),
        out=tmp_path / "run",
    )
    rows, about = load_answers(loops.run(config))
    assert len(rows) == 6 and about[0]["upstream"] == "m" and about[0]["temperature"] == 0.0
    assert {r["answer"] for r in rows if r["k"] == 0} == {" It is 7."}
    asked = len(faulty.bodies)
    assert asked == len({json.dumps(body) for body in faulty.bodies})
    assert len(list((tmp_path / "run" / "replies").rglob("*.json"))) == asked
    with pytest.raises(UserError, match=r"--upstream-server\.url='' is no http url"):
        loops.run(loops.Rounds(task=("arithmetic",), upstream="server", problems=2, out=tmp_path / "none"))
