"""Run folders: kills, torn tails, other configurations, locks, canonical text."""

import json
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corrector import records
from corrector.errors import UserError
from corrector.records import RunFolder, default_name, read_rows
from corrector.records.canonical import encode_row
from corrector.records.rowfiles import truncate_torn_tail


@dataclass(frozen=True)
class Inner:
    layers: tuple[int, ...] = (3, 4)
    url: str = field(default="", metadata={"identity": False})


@dataclass(frozen=True)
class Config:
    coef: tuple[float, ...] = (-1.0, 0.0, 1.0)
    seed: int = 0
    inner: Inner = Inner()
    out: str = field(default="", metadata={"identity": False})


CHILD = """
import sys, time
from dataclasses import dataclass
from corrector.records import RunFolder

@dataclass(frozen=True)
class Config:
    n: int = 60

with RunFolder(sys.argv[1], Config()) as run:
    assert "torch" not in sys.modules
    for start in range(run.resume_point("edits"), 60, 4):
        rows = range(start, min(start + 4, 60))
        run.append("edits", [{"item": i, "text": "é\\u2028" * i, "kl": i / 7} for i in rows])
        time.sleep(float(sys.argv[2]))
    run.finish()
"""


def child(folder: Path, sleep: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(sleep)], cwd=Path(__file__).parents[3])


def test_killed_run_resumes_to_the_bytes_of_a_clean_one(tmp_path: Path) -> None:
    assert child(tmp_path / "clean", 0).wait() == 0
    torn = tmp_path / "torn"
    file = torn / "edits.jsonl"
    for lines in (8, 24):
        process = child(torn, 0.05)
        deadline = time.monotonic() + 30
        while not file.exists() or file.read_bytes().count(b"\n") < lines:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (torn / "DONE").exists()
        with file.open("ab") as out:
            out.write(b'{"item": 99, "te')  # what a kill in the middle of a write leaves
        assert file.read_bytes() != (tmp_path / "clean/edits.jsonl").read_bytes()[: file.stat().st_size]
    assert child(torn, 0).wait() == 0
    for name in ("edits.jsonl", "DONE", "config.json", "env.json"):
        assert (torn / name).read_bytes() == (tmp_path / "clean" / name).read_bytes(), name
    assert [row["item"] for row in read_rows(torn, "edits")] == list(range(60))


@pytest.mark.parametrize("tail", [b'{"item": 3', b'{"item": 3}', b"\0\0\0\n", b"3\n", b'{"item":\n{"it\n'])
def test_torn_tail_is_truncated_and_readers_skip_it(tmp_path: Path, tail: bytes) -> None:
    with RunFolder(tmp_path / "run", Config()) as run:
        run.append("edits", [{"item": i} for i in range(3)])
    file = tmp_path / "run/edits.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + tail)
    assert len(read_rows(tmp_path / "run", "edits")) == 3
    assert file.read_bytes() == whole + tail  # a reader writes nothing
    with RunFolder(tmp_path / "run", Config()) as run:
        assert run.resume_point("edits") == 3
        assert file.read_bytes() == whole
        run.append("edits", [{"item": 3}])
        assert [row["item"] for row in run.rows("edits")] == [0, 1, 2, 3]


def test_damage_before_the_end_is_an_error_not_a_truncation(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", Config()) as run:
        run.append("edits", [{"item": i} for i in range(3)])
    file = tmp_path / "run/edits.jsonl"
    damaged = file.read_bytes().replace(b'{"item": 1}', b'{"item": 1')
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="line 2"):
        RunFolder(tmp_path / "run", Config())
    assert file.read_bytes() == damaged
    with pytest.raises(UserError, match="line 2"):
        RunFolder(tmp_path / "run", Config())  # and not "being written": the failed opening let the lock go


def test_other_configuration_names_the_fields_and_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder(folder, Config(out="a")) as run:
        run.append("edits", [{"item": 0}])
    (folder / "edits.jsonl").write_bytes((folder / "edits.jsonl").read_bytes() + b"torn")
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    with pytest.raises(UserError, match=r"inner\.layers=\[3, 4\], now \[5\]; seed=0, now 1; .*--out") as error:
        RunFolder(folder, Config(seed=1, inner=Inner((5,)), out="b"))
    assert "coef" not in str(error.value) and "out=" not in str(error.value)
    assert before == {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    RunFolder(folder, Config(out="b")).close()  # where it is written to is no part of what it is
    RunFolder(folder, Config(inner=Inner(url="elsewhere"))).close()


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        RunFolder(tmp_path, Config())
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex", Config())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "run", Config())
    with pytest.raises(UserError, match="another process"):
        RunFolder(tmp_path / "run", Config())
    first.close()
    RunFolder(tmp_path / "run", Config()).close()
    with pytest.raises(ValueError, match="closed"):
        first.append("edits", [{"item": 0}])


def test_finished_runs_take_no_rows_and_notice_changes(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", Config()) as run:
        run.append("edits", [{"item": 0}])
        assert not run.done
        run.finish()
        assert run.done
        with pytest.raises(UserError, match="finished"):
            run.append("edits", [{"item": 1}])
    RunFolder(tmp_path / "run", Config()).close()
    (tmp_path / "run/edits.jsonl").write_bytes(b'{"item": 7}\n')
    with pytest.raises(UserError, match="changed after"):
        RunFolder(tmp_path / "run", Config())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan"), [1.0, float("-inf")]])
def test_a_batch_with_a_number_that_is_none_is_refused_whole(tmp_path: Path, bad: object) -> None:
    with RunFolder(tmp_path / "run", Config()) as run:
        run.append("edits", [{"kl": 0.5}])
        with pytest.raises(ValueError, match=r"edits\.jsonl row 2, kl: -?(nan|inf)"):
            run.append("edits", [{"kl": 1.0}, {"kl": bad}])
        with pytest.raises(TypeError, match="set"):
            run.append("edits", [{"kl": {1}}])
        assert run.rows("edits") == [{"kl": 0.5}] and run.count("edits") == 1


def test_rows_are_canonical() -> None:
    row = {"z": np.float32(0.1), "a": np.bool_(True), "i": np.int64(3), "t": (-0.0, 1234567.8), "s": "é\u2028"}
    assert encode_row(row, "") == '{"z": 0.1, "a": true, "i": 3, "t": [0.0, 1234570.0], "s": "é\u2028"}\n'.encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), VALUES, max_size=4), max_size=6)


@given(rows=ROWS, cut=st.integers(1, 200))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_cut_anywhere_leave_a_prefix(tmp_path: Path, rows: list[dict[str, object]], cut: int) -> None:
    file = tmp_path / "edits.jsonl"
    data = b"".join(encode_row(row, "") for row in rows)
    file.write_bytes(data)
    assert read_rows(tmp_path, "edits") == rows
    file.write_bytes(data[:-cut] if cut < len(data) else b"")
    n = truncate_torn_tail(file)
    assert read_rows(tmp_path, "edits") == rows[:n]
    assert file.read_bytes() == b"".join(encode_row(row, "") for row in rows[:n])


def test_name_is_the_configuration() -> None:
    name = default_name("sweep", Config())
    assert (
        name == default_name("sweep", Config(out="elsewhere", inner=Inner(url="there")))
        and name.startswith("sweep-")
        and len(name) == 14
    )
    assert name != default_name("sweep", Config(seed=1)) != default_name("sweep", Config(inner=Inner((4, 3))))


def test_selection_is_written_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", Config()) as run:
        run.write_once("selection", {"dialogue": {"layer": 4, "auroc": 0.91234567}})
        run.write_once("selection", {"dialogue": {"layer": 4, "auroc": 0.91234568}})
        with pytest.raises(UserError, match=r"dialogue\.layer=4, now 3"):
            run.write_once("selection", {"dialogue": {"layer": 3, "auroc": 0.91234567}})
        assert records.read_json(run.path, "selection")["dialogue"]["layer"] == 4


def test_environment_has_versions_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-written")
    RunFolder(tmp_path / "run", Config(), device="cuda:0").close()
    text = (tmp_path / "run/env.json").read_text()
    env = json.loads(text)
    assert env["device"] == "cuda:0" and env["packages"]["numpy"] == np.__version__
    assert "sk-not" not in text
    assert env["git"] is None or len(env["git"]["commit"]) == 40


def test_resuming_elsewhere_is_said_and_recorded(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", Config(), device="cpu").close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunFolder(tmp_path / "run", Config(), device="cpu").close()
    with pytest.warns(UserWarning, match="device=cpu, now cuda"):
        RunFolder(tmp_path / "run", Config(), device="cuda").close()
    env = records.read_json(tmp_path / "run", "env")
    assert env["device"] == "cpu" and [e["device"] for e in env["resumed_in"]] == ["cuda"]
