"""A chat server as judge: strict verdicts, both orders, and faults that are counted and never scored."""

import pytest

from corrector.errors import UserError
from corrector.judges import Answer, Duel, ServerJudge, parse_verdict, read_rubric
from corrector.records.kept import Kept
from corrector.servers.chat import Chat, Server, Traffic

QUICK = Traffic(concurrency=4, timeout=5.0, retries=1, backoff=0.01)


def duel(problem, own, other):
    return Duel(problem, f"question {problem}?", Answer(own, {}), Answer(other, {}))


def judged(server, folder, duels, rubrics=None):
    with Chat(Server(server.url, "m"), QUICK, Kept(folder)) as chat:
        return ServerJudge(chat, rubrics or {"helpful": "which is better?"}).verdicts(duels), chat.counts


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("VERDICT: A", "A"),
        ("reasons\n\nVERDICT: TIE\n \n", "TIE"),
        ("VERDICT: A\nno, wait\nVERDICT: B", "B"),
        ("VERDICT: C", None),
        ("VERDICT: A.", None),
        ("**VERDICT: A**", None),
        ("verdict: a", None),
        ("VERDICT: A|B|TIE", None),
        ("VERDICT: A and more", None),
        ("VERDICT: A\nthanks", None),
        ("The better one is A", None),
        ("", None),
    ],
)
def test_verdicts_are_read_to_the_letter(reply, wanted):
    assert parse_verdict(reply) == wanted


def prefers(word):
    """A judge who picks the answer that holds `word`, wherever it stands."""

    def script(body):
        first, second = body["messages"][1]["content"].split("[Answer B]")
        a, b = word in first, word in second
        return [f"so\nVERDICT: {'TIE' if a == b else 'A' if a else 'B'}"]

    return script


def test_an_answer_wins_in_both_orders_or_not_at_all(faulty, tmp_path):
    server = faulty(prefers("good"))
    duels = [duel("a", "good", "bad"), duel("b", "bad", "good"), duel("c", "bad", "worse"), duel("d", "same", "same")]
    got, _ = judged(server, tmp_path, duels)
    assert [v.outcome for v in got] == ["win", "loss", "tie", "tie"]
    assert [v.orders for v in got] == [("own", "own"), ("other", "other"), ("tie", "tie"), None]
    assert server.n == 6  # equal answers are not asked


def test_a_judge_who_always_says_a_ties_everything(faulty, tmp_path):
    server = faulty(lambda body: ["VERDICT: A"])
    got, _ = judged(server, tmp_path, [duel(str(i), f"x{i}", f"y{i}") for i in range(5)])
    assert [v.outcome for v in got] == ["swapped"] * 5
    assert got[0].orders == ("own", "other")


def test_faults_have_outcomes_of_their_own_and_only_failures_are_asked_again(faulty, tmp_path):
    answers = {
        "garbled": ["I like both"],
        "dead": [500],
        "refused": [400],
        "busy": [(429, {"Retry-After": "0"}), "VERDICT: TIE"],
    }

    def script(body):
        return next(v for k, v in answers.items() if k in body["messages"][1]["content"])

    server = faulty(script)
    duels = [duel(k, f"{k} one", f"{k} two") for k in answers]
    got, counts = judged(server, tmp_path, duels)
    assert [v.outcome for v in got] == ["unparsed", "failed", "rejected", "tie"]
    assert (counts["requests"], counts["retries"], counts["retry_after"]) == (2 + 4 + 2 + 4, 4, 2)
    assert server.n == 12
    answers["dead"] = ["VERDICT: TIE"]
    got, counts = judged(server, tmp_path, duels)
    assert [v.outcome for v in got] == ["unparsed", "tie", "rejected", "tie"]
    assert counts["requests"] == 2 and server.n == 14
    _, counts = judged(server, tmp_path, duels)
    assert counts["requests"] == 0 and server.n == 14


def test_each_rubric_is_asked_in_its_own_words(faulty, tmp_path):
    server = faulty(lambda body: ["VERDICT: TIE"])
    got, _ = judged(server, tmp_path, [duel("a", "x", "y")], {"one": "RUBRIC ONE", "two": "RUBRIC TWO"})
    assert [v.aspect for v in got] == ["one", "two"] and server.n == 4
    systems = [body["messages"][0]["content"] for body in server.bodies]
    assert sum("RUBRIC ONE" in s for s in systems) == sum("RUBRIC TWO" in s for s in systems) == 2
    assert all("VERDICT: TIE" in s for s in systems)


def test_rubrics_are_shipped_or_files(tmp_path):
    for name in ("helpful", "harmless"):
        aspect, text = read_rubric(name)
        assert aspect == name and name in text
    own = tmp_path / "kind.txt"
    own.write_text("be kind")
    assert read_rubric(str(own)) == ("kind", "be kind")
    own.write_text(" ")
    for bad in (str(own), "absent"):
        with pytest.raises(UserError, match=r"empty|neither"):
            read_rubric(bad)
