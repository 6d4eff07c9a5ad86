"""Blocks finished in any order, through kills at any byte: the same file in the end, and nothing else left."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.records import RunFolder, folder, read_rows
from corrector.records.blocks import Blocks


@dataclass(frozen=True)
class Config:
    seed: int = 0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No git and no disk to wait for: what is tested is files, hundreds of times."""
    monkeypatch.setattr(folder, "environment", lambda device: {"device": device})
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def rows_of(block: int, n: int) -> list[dict[str, Any]]:
    return [{"block": block, "i": i, "text": "é\u2028\n" * i, "kl": (block + 1) / (i + 7)} for i in range(n)]


def clean(folder: Path, sizes: tuple[int, ...]) -> dict[str, bytes]:
    with RunFolder(folder, Config()) as run:
        run.append("edits", [row for i, n in enumerate(sizes) for row in rows_of(i, n)])
        run.finish()
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name; a folder, were one left, is an entry of its own."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"/" for p in folder.rglob("*")}


@given(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=7).map(tuple))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_any_kills_end_with_the_bytes_of_a_run_in_order(tmp_path: Path, data: Any, sizes: Any) -> None:
    shutil.rmtree(tmp_path)
    whole = clean(tmp_path / "clean", sizes)
    folder = tmp_path / "run"
    for attempt in range(4):
        with RunFolder(folder, Config()) as run:
            blocks = Blocks(run, "edits", sizes)
            assert whole["edits.jsonl"].startswith(contents(folder).get("edits.jsonl", b""))
            todo = data.draw(st.permutations(blocks.missing), "order")
            before = contents(folder)
            for i in todo if attempt == 3 else todo[: data.draw(st.integers(0, len(todo)), "finished before the kill")]:
                before = contents(folder)
                blocks.add(i, rows_of(i, sizes[i]))
            assert blocks.n_rows == sum(sizes) - sum(sizes[i] for i in blocks.missing) + partial(blocks, run)
            if attempt == 3:
                run.finish()
        if attempt < 3:
            kill(folder, before, data)
    assert contents(folder) == whole


def partial(blocks: Blocks, run: RunFolder) -> int:
    """Rows of the first missing block that a kill left whole."""
    starts = [0, *accumulate(blocks.sizes)]
    return max([0, *(run.count("edits") - starts[i] for i in blocks.missing[:1])])


def kill(folder: Path, before: dict[str, bytes], data: Any) -> None:
    """What a kill may leave: files of a moment ago that were to go, half a neighbour, files cut at any byte."""
    if data.draw(st.booleans(), "before the waiting files went"):
        for name, text in before.items():
            if ".pending/" in name and not (folder / name).exists():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(text)
    if data.draw(st.booleans(), "while a block was written"):
        (folder / "edits.pending").mkdir(exist_ok=True)
        (folder / "edits.pending" / "000000001.jsonl.tmp").write_bytes(b'{"block": ')
    for file in sorted(folder.rglob("*.jsonl")):
        if data.draw(st.booleans(), f"{file.name} is cut"):
            os.truncate(file, data.draw(st.integers(0, file.stat().st_size), "at byte"))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder(tmp_path / "run", Config()) as folder:
        yield folder


def test_the_file_holds_a_prefix_and_the_rest_waits(run: RunFolder) -> None:
    blocks = Blocks(run, "edits", (2, 3, 1))
    blocks.add(2, rows_of(2, 1))
    blocks.add(1, rows_of(1, 3))
    assert blocks.missing == [0] and blocks.n_rows == 4 and read_rows(run.path, "edits") == []
    waiting = sorted(p.name for p in (run.path / "edits.pending").iterdir())
    assert waiting == ["000000002.jsonl", "000000005.jsonl"]
    blocks.add(0, rows_of(0, 2))
    assert [row["block"] for row in read_rows(run.path, "edits")] == [0, 0, 1, 1, 1, 2]
    assert blocks.missing == [] and blocks.n_rows == 6 and not (run.path / "edits.pending").exists()


def test_a_run_that_lacks_rows_is_not_finished(run: RunFolder) -> None:
    blocks = Blocks(run, "edits", (1, 1))
    with pytest.raises(ValueError, match="0 of 2 rows"):
        run.finish()
    blocks.add(1, rows_of(1, 1))
    with pytest.raises(ValueError, match="0 of 2 rows"):
        run.finish()
    assert not run.done
    blocks.add(0, rows_of(0, 1))
    run.finish()
    assert run.done and Blocks(run, "edits", (1, 1)).missing == []


def test_rows_that_wait_are_not_forgotten_by_a_caller_who_knows_of_no_blocks(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", Config()) as run:
        Blocks(run, "edits", (1, 1)).add(1, rows_of(1, 1))
    with RunFolder(tmp_path / "run", Config()) as run, pytest.raises(ValueError, match="wait for their turn"):
        run.finish()


def test_blocks_of_another_size_and_blocks_that_are_there_are_refused(run: RunFolder) -> None:
    blocks = Blocks(run, "edits", (1, 1, 1))
    blocks.add(0, rows_of(0, 1))
    blocks.add(2, rows_of(2, 1))
    for there in (0, 2):
        with pytest.raises(ValueError, match="there already"):
            blocks.add(there, rows_of(there, 1))
    with pytest.raises(ValueError, match="has 1 rows; got 2"):
        blocks.add(1, rows_of(1, 2))
    with pytest.raises(UserError, match="holds 1 rows where its configuration makes 0"):
        Blocks(run, "edits", ())


def test_a_waiting_block_of_another_plan_is_discarded(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", Config()) as run:
        Blocks(run, "edits", (1, 1, 2)).add(2, rows_of(2, 2))
    with RunFolder(tmp_path / "run", Config()) as run:
        assert Blocks(run, "edits", (1, 1, 3)).missing == [0, 1, 2]
        assert not (run.path / "edits.pending").exists()


@pytest.mark.parametrize("bad", [float("nan"), {1}])
def test_a_block_that_is_refused_leaves_nothing(run: RunFolder, bad: object) -> None:
    blocks = Blocks(run, "edits", (1, 1))
    for block in (0, 1):
        with pytest.raises((ValueError, TypeError), match=rf"edits\.jsonl row {block}, kl"):
            blocks.add(block, [{"kl": bad}])
    assert blocks.missing == [0, 1] and read_rows(run.path, "edits") == []


def test_no_block_is_kept_by_a_closed_or_a_finished_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", Config())
    blocks = Blocks(run, "edits", (1, 1))
    run.close()
    with pytest.raises(ValueError, match="closed"):
        blocks.add(1, rows_of(1, 1))
    with RunFolder(tmp_path / "run", Config()) as again:
        again.append("edits", rows_of(0, 1))
        again.finish()
        with pytest.raises(UserError, match="finished"):
            Blocks(again, "edits", (1, 1)).add(1, rows_of(1, 1))
