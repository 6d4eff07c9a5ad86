"""The chat client against a server that fails in every way there is."""

import time
from email.utils import formatdate

import pytest

from corrector.errors import UserError
from corrector.records.kept import Kept
from corrector.servers.chat import Chat, Reply, Server, Traffic, traffic_line
from corrector.servers.endpoint import _seconds

KEY = "sk-not-a-real-key-12345"
QUICK = Traffic(concurrency=4, timeout=0.4, retries=2, backoff=0.01, longest_wait=0.2)


def prompt(text):
    return [{"role": "user", "content": text}]


def chat(server, folder, traffic=QUICK, **options):
    return Chat(Server(server.url, "m", **options), traffic, Kept(folder))


def told(server, folder, *texts, **options):
    with chat(server, folder, **options) as c:
        return c.ask([prompt(t) for t in texts]), c.counts


SCRIPTS = {
    "fine": ["hello"],
    "busy": [(429, {"Retry-After": "0.05"}), 503, "later"],
    "broken": [500],
    "slow": ["hang", "in time"],
    "dead": ["hang"],
    "page": [b"<html>", "a reply"],
    "empty": [b'{"choices": []}'],
    "silent": [None],
    "long": [413],
}


def script(body):
    return SCRIPTS[body["messages"][-1]["content"]]


def test_faults_are_retried_counted_and_final_answers_kept(faulty, tmp_path):
    server = faulty(script)
    replies, counts = told(server, tmp_path, *SCRIPTS)
    got = dict(zip(SCRIPTS, replies, strict=True))
    assert {name: r.text for name, r in got.items() if r.status == "ok"} == {
        "fine": "hello",
        "busy": "later",
        "slow": "in time",
        "page": "a reply",
        "silent": "",
    }
    assert {name: r.reason for name, r in got.items() if r.status == "failed"} == {
        "broken": "500",
        "dead": "ReadTimeout",
        "empty": "no completion",
    }
    assert got["long"].status == "rejected" and got["long"].reason.startswith("413")
    assert (counts["ok"], counts["failed"], counts["rejected"], counts["kept"]) == (5, 3, 1, 0)
    assert counts["requests"] == server.n == 1 + 3 + 3 + 2 + 3 + 2 + 3 + 1 + 1
    assert counts["retries"] == server.n - len(SCRIPTS) and counts["retry_after"] == 1
    again, counts = told(server, tmp_path, *SCRIPTS)
    assert again == replies
    assert (counts["kept"], counts["requests"]) == (6, 9)  # only what failed is asked again


def test_a_second_client_sends_nothing(faulty, tmp_path):
    server = faulty(lambda body: ["yes"])
    first, counts = told(server, tmp_path, "a", "b", "a")
    assert server.n == counts["requests"] == 2
    again, counts = told(server, tmp_path, "a", "b", "a")
    assert again == first and server.n == 2 and counts["requests"] == 0 and counts["kept"] == 2
    told(server, tmp_path, "a", temperature=0.5)
    assert server.n == 3  # another question, since everything that is sent counts


def test_the_server_says_how_long_to_wait(faulty, tmp_path, monkeypatch):
    server, waits = faulty(lambda body: [(429, {"Retry-After": "30"}), "ok"]), []
    monkeypatch.setattr("corrector.servers.endpoint.Client.wait", lambda self, seconds: waits.append(seconds))
    told(server, tmp_path, "a", traffic=Traffic(backoff=1.0))
    told(server, tmp_path, "b", traffic=Traffic(backoff=1.0, longest_wait=7.0))
    assert waits == [30.0, 7.0]
    assert _seconds(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert _seconds("soon") is None and _seconds(None) is None and _seconds("-1") == 0.0


def test_waits_grow_and_their_jitter_is_seeded(faulty, tmp_path, monkeypatch):
    server, waits = faulty(lambda body: [500]), []
    monkeypatch.setattr("corrector.servers.endpoint.Client.wait", lambda self, seconds: waits.append(seconds))
    traffic = Traffic(concurrency=1, retries=4, backoff=1.0)
    told(server, tmp_path, "a", traffic=traffic)
    told(server, tmp_path, "a", traffic=traffic)
    assert waits[:4] == waits[4:]
    assert all(2**k / 2 <= wait <= 2**k for k, wait in enumerate(waits[:4]))
    told(server, tmp_path, "a", traffic=Traffic(concurrency=1, retries=4, seed=1))
    assert len(waits) == 12 and waits[8:] != waits[:4]


def test_the_key_is_sent_and_written_nowhere(faulty, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LAB_KEY", KEY)
    server = faulty(lambda body: [f"you sent {KEY}"])
    with caplog.at_level(0):
        ((reply,), counts) = told(server, tmp_path, "a", key_env="LAB_KEY")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert reply == Reply("ok", "you sent [key]")
    written = "".join(f.read_text() for f in tmp_path.rglob("*.json"))
    assert "you sent" in written and KEY not in written + caplog.text + traffic_line(counts)
    refused = faulty(lambda body: [401])
    with pytest.raises(UserError, match="401") as error:
        told(refused, tmp_path / "b", "a", key_env="LAB_KEY")
    assert KEY not in str(error.value) and refused.n == 1


def test_concurrency_is_bounded(faulty, tmp_path):
    server = faulty(lambda body: ["slow"])
    told(server, tmp_path, *"abcdef", traffic=Traffic(concurrency=2, timeout=60.0))
    assert server.most == 2


@pytest.mark.parametrize(
    ("server", "traffic", "said"),
    [
        (Server("", "m"), QUICK, "no http url"),
        (Server("ftp://x", "m"), QUICK, "no http url"),
        (Server("http://u:secret@x/v1", "m"), QUICK, "key-env"),
        (Server("http://x/v1?key=secret", "m"), QUICK, "key-env"),
        (Server("http://x/v1"), QUICK, "server.model"),
        (Server("http://x/v1", "m", key_env="LAB_ABSENT"), QUICK, "not set"),
        (Server("http://x/v1", "m", temperature=-1.0), QUICK, "server.temperature"),
        (Server("http://x/v1", "m"), Traffic(concurrency=0), "concurrency=0"),
        (Server("http://x/v1", "m"), Traffic(timeout=0.0), "timeout=0"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(server, traffic, said, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        Chat(server, traffic, Kept(tmp_path))
    assert "secret" not in str(error.value)
