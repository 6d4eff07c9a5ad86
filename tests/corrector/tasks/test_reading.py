"""Rows of files, folders and the hub, and fields that name themselves."""

import gzip
import json
import sys
from types import SimpleNamespace

import pytest

from corrector.errors import UserError
from corrector.tasks.fields import Fields
from corrector.tasks.reading import read_rows, rows_of

ROWS = [{"a": 1}, {"a": "x\u2028y"}, {"a": None}]


def lines(rows=ROWS):
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lines()),
        ("a.jsonl", b"\xef\xbb\xbf" + lines()),
        ("a.jsonl", b"\n" + lines() + b"\n"),
        ("a.jsonl.gz", gzip.compress(lines(), mtime=0)),
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.json", lines()),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
    ],
)
def test_every_form_of_a_file_gives_the_same_rows(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert [row for _, row in read_rows(tmp_path / name)] == ROWS
    assert {r.source for r in rows_of(str(tmp_path / name))} == {name}


def test_lines_are_read_one_by_one(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines() + b"{oops\n")
    rows = read_rows(tmp_path / "a.jsonl")
    assert [next(rows)[1] for _ in ROWS] == ROWS
    with pytest.raises(UserError, match=r"a.jsonl:4: no JSON"):
        next(rows)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for name, row in (("train/b.json", {"n": 2}), ("test/a.json", {"n": 1}), ("train/a.jsonl", {"n": 3})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(row))
    (tmp_path / "README.md").write_text("no row")
    got = [(r.source, r.row["n"]) for r in rows_of(str(tmp_path))]
    assert got == [("test/a.json", 1), ("train/a.jsonl", 3), ("train/b.json", 2)]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid x\n", "git lfs pull"),
        ("a.jsonl.gz", gzip.compress(lines(), mtime=0)[:-9], "is it whole"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"no UTF-8 text \(.*line 2\)"),
        ("a.json", b"[\n{},\n", r"a.json:3: no JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said):
        list(read_rows(tmp_path / name))


def test_what_is_nowhere_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file, no folder and no hub id"):
        list(rows_of("no such thing"))
    with pytest.raises(UserError, match=r"no file that ends in .jsonl"):
        list(rows_of(str(tmp_path / "empty")))


def test_a_hub_set_is_streamed(monkeypatch):
    asked = []

    def load_dataset(path, **options):
        asked.append((path, options))
        if path == "no/body":
            raise ConnectionError("no network\nat all")
        return {"train": iter(ROWS), "test": iter(ROWS[:1])}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    got = list(rows_of("a/set@v1:main"))
    assert [(r.where, r.source) for r in got][2:] == [("a/set train:3", "train"), ("a/set test:1", "test")]
    assert len(list(rows_of("a/set:b/c.json", ("test",)))) == 1
    wanted = {"streaming": True, "revision": "v1", "name": "main", "data_files": None}
    assert asked[0] == ("a/set", wanted)
    assert asked[1] == ("a/set", {"streaming": True, "revision": None, "name": None, "data_files": "b/c.json"})
    for data, said in (("no/body", r"\(no network\)"), ("a/set", "no split dev, but train, test")):
        with pytest.raises(UserError, match=said):
            list(rows_of(data, ("dev",)))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        list(rows_of("a/set"))


def test_a_field_names_file_line_and_itself():
    row = Fields({"t": "x", "b": " ", "n": 3, "f": True, "l": ["a", 1], "o": {"i": [{"t": 5}, 6]}}, "f.jsonl:2", ("t",))
    assert (row.text("t"), row.flag("f"), row.number("n", 0, 3), row.text("b", empty=True)) == ("x", True, 3, " ")
    inner = row.inner("o")
    for take, said in (
        (lambda: row.text("q"), r"f.jsonl:2: field 'q' is missing; there are t, b, .*; expected are t"),
        (lambda: row.text("n"), "field 'n' is 3; a text"),
        (lambda: row.text("b"), "field 'b' is empty"),
        (lambda: row.texts("l"), r"field 'l' is \['a', 1\]; a list of texts"),
        (lambda: row.flag("n"), "field 'n' is 3; true or false"),
        (lambda: row.number("n", 0, 2), r"field 'n' is 3; a whole number in 0\.\.2"),
        (lambda: row.number("f", 0, 2), "field 'f' is True"),
        (lambda: row.each("t"), "field 't' is 'x'; a list of objects"),
        (lambda: row.inner("t"), "f.jsonl:2: field 't' is 'x'; an object"),
        (lambda: inner.each("i"), r"field 'o\.i\[1\]' is 6; an object"),
        (lambda: Fields({"i": [{"t": 5}]}, "f", (), "o.").each("i")[0].text("t"), r"field 'o\.i\[0\]\.t' is 5; a text"),
        (lambda: Fields([1], "f.jsonl:3", ("t",)), r"f.jsonl:3: list is no row; an object with t is expected"),
    ):
        with pytest.raises(UserError, match=said):
            take()
