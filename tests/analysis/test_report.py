"""The command that writes the trace page: where it goes, what it refuses, and that its data cannot break out."""

import json
import re
import sys
from pathlib import Path

import pytest

from analysis.report import Report, main, report
from analysis.trace.page import PARTS, embedded, render
from corrector.errors import UserError, run_cli
from corrector.records import read_rows

REAL = Path(__file__).parents[2] / "figures" / "runs" / "fig8-aligner-0"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a shipped, archived run without a loop, with the projections of one item."""
    out = tmp_path_factory.mktemp("report") / "deep" / "page.html"
    return report(Report((REAL,), out, items=2, traces=1))


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_a_shipped_run_becomes_one_whole_file(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "plotly.js v" in text and not re.search(r"<!--[\w.]+-->", text)
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?(https?:)?//""", text)
    run = data_of(page)["runs"][0]
    assert run["name"] == REAL.name and run["source"]["rows"] == json.loads((REAL / "DONE").read_text())
    assert run["source"]["commit"] == json.loads((REAL / "env.json").read_text())["git"]["commit"]


def test_its_rows_are_the_archives(page):
    task = data_of(page)["runs"][0]["tasks"][0]
    rows = [row for row in read_rows(REAL, "edits") if row["item"] < 2]
    column = task["edits"]["columns"]["correction"]
    assert [column["pool"][i] for i in column["at"]] == [row["correction"] for row in rows]
    assert task["edits"]["columns"]["edit_ratio"]["values"] == [row["edit_ratio"] for row in rows]
    assert task["loop"]["n"] == 0 and task["traces"]["n"] == 1 and task["traces"]["of"] == 60
    assert task["traces"]["limit"] > 0


def test_no_path_of_this_machine_is_in_it(page):
    text = json.dumps(data_of(page))
    assert str(page.parent) not in text and str(REAL.parent) not in text


def test_data_cannot_end_its_script_or_call_for_a_part():
    nasty = {"t": f"</script><!--{PARTS[0]}--> \u2028 <script>"}
    assert "<" not in embedded(nasty) and json.loads(embedded(nasty)) == nasty
    text = render([nasty], "command")
    assert json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["runs"] == [nasty]
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded(float("nan"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Report(()), "no run was given"),
        (Report((REAL,), items=0), "items=0 is below 1"),
        (Report((REAL,), problems=-1), "problems=-1 is below 1"),
        (Report((REAL,), traces=0), "traces=0 is below 1"),
        (Report((REAL,), Path("page.txt")), r"names no \.html file"),
        (Report((REAL,), REAL), r"names no \.html file"),
        (Report((Path("nowhere"),)), r"holds no config\.json"),
    ],
)
def test_what_does_not_fit_is_refused(config, said):
    with pytest.raises(UserError, match=said):
        report(config)


def test_the_command_line_gives_one_line_and_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--no-projections"])
    with pytest.raises(SystemExit) as stopped:
        run_cli(Report, main, "analysis.report")
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("analysis.report: ") and said.count("\n") == 1
