import json
import lzma
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from corrector.archive import Archive, archive, main
from corrector.errors import UserError, run_cli
from corrector.records import RunFolder, read_rows

ROWS = [{"item": i, "text": "a line\u2028 and another\n" * 3, "x": i / 3} for i in range(50)]


@dataclass(frozen=True)
class Config:
    seed: int = 0


@pytest.fixture
def run(tmp_path):
    with RunFolder(tmp_path / "run", Config()) as folder:
        folder.append("edits", ROWS)
        folder.write_once("selection", {"layer": 4})
        folder.finish()
    (tmp_path / "run" / "figure.png").write_bytes(b"drawn")
    return tmp_path / "run"


def test_an_archive_reads_as_the_run_itself_and_is_smaller(run, tmp_path):
    out = archive(Archive(run, tmp_path / "runs" / "small"))
    assert read_rows(out, "edits") == read_rows(run, "edits") and len(read_rows(out, "edits")) == 50
    assert read_rows(out, "alignments") == []
    assert {f.name for f in out.iterdir()} == {"config.json", "env.json", "selection.json", "DONE", "edits.jsonl.xz"}
    assert (out / "edits.jsonl.xz").stat().st_size < (run / "edits.jsonl").stat().st_size / 5
    again = archive(Archive(run, tmp_path / "again"))
    assert all((again / f.name).read_bytes() == f.read_bytes() for f in out.iterdir())


def test_a_changed_number_is_seen(run, tmp_path):
    out = archive(Archive(run, tmp_path / "small"))
    rows = lzma.decompress((out / "edits.jsonl.xz").read_bytes()).replace(b'"item": 7,', b'"item": 8,')
    assert rows.count(b'"item": 8,') == 2
    (out / "edits.jsonl.xz").write_bytes(lzma.compress(rows))
    with pytest.raises(UserError, match="other rows than"):
        read_rows(out, "edits")
    (out / "DONE").write_text("{}")
    with pytest.raises(UserError, match="other rows than"):
        read_rows(out, "edits")
    (out / "edits.jsonl.xz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be unpacked"):
        read_rows(out, "edits")


def test_mistakes_cost_nothing(run, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="exists and is kept"):
        archive(Archive(run, run))
    (run / "edits.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(UserError, match="changed after"):
        archive(Archive(run, tmp_path / "small"))
    (run / "edits.jsonl").unlink()
    with pytest.raises(UserError, match=r"lacks edits\.jsonl"):
        archive(Archive(run, tmp_path / "small"))
    (run / "DONE").unlink()
    monkeypatch.setattr(sys, "argv", ["archive", str(run), str(tmp_path / "small")])
    with pytest.raises(SystemExit) as stop:
        run_cli(Archive, main, "corrector.archive")
    assert stop.value.code == 2 and "no finished run" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    "folder", sorted((Path(__file__).parents[2] / "figures" / "runs").iterdir()), ids=lambda f: f.name
)
def test_every_committed_run_holds_the_rows_that_its_done_names_and_no_path_of_a_machine(folder):
    done = json.loads((folder / "DONE").read_text())
    assert done and {f.name for f in folder.glob("*.jsonl.xz")} == {f"{name}.jsonl.xz" for name in done}
    for name, about in done.items():
        assert len(read_rows(folder, name)) == about["rows"] > 0
    assert not any(
        value.startswith("/")
        for value in json.loads((folder / "config.json").read_text()).values()
        if isinstance(value, str)
    )
