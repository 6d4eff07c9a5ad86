"""Claims against findings: signs, intervals, and what the shipped runs must still give."""

import json
import shutil
from pathlib import Path

import pytest

from analysis.claims.found import Found
from analysis.claims.stream_aligner import CLAIMS, Claim, Verdict, findings, judge
from analysis.claims.verdicts import document, table_of
from analysis.paper import DOCUMENT, SHIPPED, STEPS

UP = Claim("1", "it rises", "+1", "key")
DOWN, SAME = Claim("1", "it falls", "-1", "key", -1), Claim("1", "no change", "0", "key", 0)


def found(value, low, high, **other):
    numbers = (None if x is None else float(x) for x in (value, low, high))
    return Found("key", "a corrector", *numbers, 100, **other)


@pytest.mark.parametrize(
    ("claim", "values", "word"),
    [
        (UP, [(1, 0.5, 1.5), (2, 1, 3)], "holds"),
        (UP, [(1, 0.5, 1.5), (0.1, -0.2, 0.3)], "holds in part"),
        (UP, [(0.1, -0.2, 0.3)], "not shown"),
        (UP, [(-0.1, -0.2, 0.3)], "not shown"),
        (UP, [(-1, -2, -0.5)], "disagrees"),
        (UP, [(-1, -2, -0.5), (0.1, -0.1, 0.3)], "disagrees"),
        (UP, [(-1, -2, -0.5), (1, 0.5, 1.5)], "holds in part"),
        (DOWN, [(-1, -2, -0.5)], "holds"),
        (DOWN, [(1, 0.5, 1.5)], "disagrees"),
        (SAME, [(0.1, -0.2, 0.3)], "holds"),
        (SAME, [(1, 0.5, 1.5)], "disagrees"),
        (UP, [], "not run"),
    ],
)
def test_a_verdict_goes_by_sign_and_interval(claim, values, word):
    assert Verdict(claim, tuple(found(*v) for v in values)).word == word


def test_ratios_have_their_null_at_one_and_verdicts_speak_for_themselves():
    assert Verdict(DOWN, (found(0.8, 0.7, 0.9, null=1.0),)).word == "holds"
    assert Verdict(UP, (found(0.8, 0.7, 0.9, null=1.0),)).word == "disagrees"
    told = [found(None, None, None, holds=h) for h in (True, None, False)]
    assert Verdict(UP, (told[0],)).word == "holds" and Verdict(UP, (told[1],)).word == "not shown"
    assert Verdict(UP, (told[2],)).word == "disagrees" and Verdict(UP, tuple(told)).word == "holds in part"


@pytest.fixture(scope="module")
def shipped():
    return sorted(f for f in SHIPPED.iterdir() if (f / "DONE").is_file())


@pytest.fixture(scope="module")
def measured(shipped):
    return findings(shipped)


def test_every_claim_is_measured_by_a_shipped_run(measured):
    judged = judge(measured)
    assert len(judged) == len(CLAIMS)
    assert [v.claim.key for v in judged if v.word == "not run"] == []
    for verdict in judged:
        assert all(f.n > 1 for f in verdict.found)


def test_the_document_is_what_the_shipped_runs_give(shipped, measured):
    cure = "run python -m analysis.paper --shipped"
    assert DOCUMENT.read_text(encoding="utf-8") == document(shipped, measured), cure
    assert DOCUMENT.with_suffix(".csv").read_text(encoding="utf-8") == table_of(measured), cure


def test_stand_ins_are_named_beside_their_run(tmp_path):
    folder = tmp_path / "sizes"
    shutil.copytree(SHIPPED / "sizes", folder)
    about = json.loads((folder / "about.json").read_text())
    about["correctors"][1]["source"] = "cache"
    (folder / "about.json").write_text(json.dumps(about))
    assert f"cached answers of {about['correctors'][1]['corrector']} |" in document([folder], {})


def test_every_step_of_the_paper_ships_its_run_under_its_name(shipped):
    assert {s.name for s in STEPS} <= {f.name for f in shipped}


def test_text_cannot_break_the_table(tmp_path):
    from analysis.claims.verdicts import _cell

    assert _cell("a | b\n<script>") == "a \\| b &lt;script>"
    assert Path(DOCUMENT).name == "paper.md"
