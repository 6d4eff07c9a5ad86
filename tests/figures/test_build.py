"""Building and checking a gallery: equal bytes, and one line for every fault."""

import hashlib
import json
import lzma
import shutil
from dataclasses import replace

import pytest

from corrector.errors import UserError
from figures import cost, style
from figures import map as figure_map
from figures.build import Build, build, chosen, draw, main
from figures.catalogue import GALLERY, ROOT, Listed
from figures.verify import differing, orphans, verify

COST = Listed("cost", cost.build, "benchmarks", "benchmark")
MAP = Listed("map", figure_map.build, "runs/map-dialogue-0", "map")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "README.md", tmp_path / "benchmarks")
    return tmp_path


@pytest.fixture
def gallery(root):
    assert build([COST], root, root / "gallery") == []
    return root / "gallery"


def faults(root, gallery, *figures, whole=False):
    return verify(figures or (COST,), root, gallery, draw, whole)


def test_two_builds_give_equal_bytes_and_a_check_finds_nothing(root, gallery, capsys):
    build([COST], root, root / "again")
    names = sorted(file.name for file in gallery.iterdir())
    assert names == ["cost.csv", "cost.pdf", "cost.png", "manifest.json"]
    for name in names:
        assert (gallery / name).read_bytes() == (root / "again" / name).read_bytes()
    capsys.readouterr()
    assert faults(root, gallery, whole=True) == []
    assert "1 figures checked, 0 faults; image bytes compared of all (matplotlib" in capsys.readouterr().out


def test_images_hold_no_date_and_embed_their_fonts(gallery):
    pdf, png = ((gallery / f"cost.{kind}").read_bytes() for kind in ("pdf", "png"))
    assert b"CreationDate" not in pdf and b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert png.startswith(b"\x89PNG") and b"tIME" not in png and b"Software" not in png


def test_the_manifest_says_what_a_figure_was_made_of(root, gallery):
    found = json.loads((gallery / "manifest.json").read_text())["figures"]["cost"]
    data = (root / "benchmarks" / "README.md").read_bytes()
    assert found["inputs"] == {"benchmarks/README.md": hashlib.sha256(data).hexdigest()}
    assert set(found["code"]) == {"figures/cost.py", "figures/drawn.py"} and found["runs"] == ["benchmarks"]
    for kind, key in (("csv", "table"), ("png", "png"), ("pdf", "pdf")):
        assert found[key] == hashlib.sha256((gallery / f"cost.{kind}").read_bytes()).hexdigest()
    assert found["n_rows"] == len((gallery / "cost.csv").read_text().splitlines()) - 1
    assert found["made_with"]["matplotlib"] and found["caption"] and found["interval"] and found["n"]


def test_a_changed_number_in_the_data_is_found(root, gallery):
    file = root / "benchmarks" / "README.md"
    text = file.read_text()
    row = next(line for line in text.split("## Scaling")[1].splitlines() if line.startswith("| 1: "))
    number = row.split("|")[2].split()[0]
    file.write_text(text.replace(row, row.replace(f" {number} (", f" {float(number) + 1:.3g} (", 1)))
    found = faults(root, gallery)
    assert any("benchmarks/README.md is not what the figure was made of" in fault for fault in found)
    assert any("cost.csv has y=" in fault and "rebuilt" in fault for fault in found)
    assert any("rebuilt png" in fault for fault in found)


def test_a_changed_row_of_a_run_is_found_whether_its_done_names_it_or_not(root):
    run = root / "runs" / "map-dialogue-0"
    shutil.copytree(ROOT / "figures" / "runs" / "map-dialogue-0", run)
    build([MAP], root, root / "gallery")
    packed = run / "map.jsonl.xz"
    rows = [json.loads(line) for line in lzma.decompress(packed.read_bytes()).splitlines()]
    row = next(r for r in rows if r["split"] == "test" and r["direction"] == "correction" and len(r["layers"]) == 1)
    row["edit_ratio"] += 0.25
    data = "".join(json.dumps(r) + "\n" for r in rows).encode()
    packed.write_bytes(lzma.compress(data))
    (fault,) = faults(root, root / "gallery", MAP)
    assert "cannot be rebuilt" in fault and "holds other rows" in fault
    done = json.loads((run / "DONE").read_text())
    done["map"]["sha256"] = hashlib.sha256(data).hexdigest()
    (run / "DONE").write_text(json.dumps(done))
    found = faults(root, root / "gallery", MAP)
    assert any("map.jsonl is not what the figure was made of" in fault for fault in found)
    assert any("map.csv has value=" in fault for fault in found)


def test_missing_empty_and_foreign_files_are_told(root, gallery):
    (gallery / "cost.png").unlink()
    (gallery / "cost.csv").write_text("")
    (gallery / "old.png").write_bytes(b"x")
    found = faults(root, gallery, whole=True)
    for part in ("cost.png is missing", "cost.csv is empty", "old.png: belongs to no figure"):
        assert sum(part in fault for fault in found) == 1
    assert not any("old.png" in fault for fault in faults(root, gallery)), "one figure's check knows no others"
    (gallery / "cost.pdf").unlink()
    assert not any("cost.pdf" in fault for fault in faults(root, gallery)), "PDFs are not committed"
    assert orphans([], gallery, {"gone": {}})[-1] == "manifest.json: gone is no figure of figures/catalogue.py"


def test_on_another_machine_numbers_are_compared_and_images_are_not(root, gallery, capsys):
    file = gallery / "manifest.json"
    known = json.loads(file.read_text())
    known["figures"]["cost"]["made_with"]["matplotlib"] = "0.1"
    known["figures"]["cost"]["png"] = hashlib.sha256((gallery / "cost.csv").read_bytes()).hexdigest()
    (gallery / "cost.png").write_bytes((gallery / "cost.csv").read_bytes())
    file.write_text(json.dumps(known))
    assert faults(root, gallery) == []
    assert "image bytes compared of 0: the others were not made with what is here" in capsys.readouterr().out
    text = (gallery / "cost.csv").read_text().splitlines()
    text[1] = text[1].replace(text[1].split(",")[3], "99")
    (gallery / "cost.csv").write_text("\n".join(text) + "\n")
    found = faults(root, gallery)
    assert any("cost.csv is not the manifest's" in f for f in found) and any(
        "=99 in line 2, rebuilt" in f for f in found
    )


def test_other_code_and_words_are_told(root, gallery):
    file = gallery / "manifest.json"
    known = json.loads(file.read_text())
    known["figures"]["cost"] |= {"style": "0", "caption": "another", "code": {"figures/cost.py": "0"}}
    file.write_text(json.dumps(known))
    found = faults(root, gallery)
    for part in ("figures/style.py", "figures/cost.py", "figures/drawn.py", "caption is Cost against"):
        assert sum(part in fault for fault in found) == 1


def test_a_missing_run_is_a_fault(root, gallery):
    gone = replace(COST, name="gone", run="nowhere")
    assert faults(root, gallery, gone) == ["gone: its run nowhere is missing"]
    assert faults(root, gallery, replace(COST, name="new")) == [
        "new: not in manifest.json; run python -m figures.build new"
    ]
    with pytest.raises(UserError, match="nowhere is missing"):
        main(Build(out=gallery), [COST, gone], root)


def test_the_command_exits_with_1_on_a_fault_and_tells_a_users_mistakes(root, gallery, capsys):
    main(Build(check=True, out=gallery), [COST], root)
    (gallery / "cost.csv").unlink()
    with pytest.raises(SystemExit) as stop:
        main(Build(check=True, out=gallery), [COST], root)
    assert stop.value.code == 1 and "cost.csv is missing" in capsys.readouterr().out
    with pytest.raises(UserError, match="'nope' is no figure; choose of rounds-dialogue"):
        chosen(["nope"])
    for config in (Build(width="column"), Build(width="column", check=True, out=gallery)):
        with pytest.raises(UserError, match="as wide as a page"):
            main(config, [COST], root)
    (gallery / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is no manifest"):
        main(Build(out=gallery, names=("cost",)), [COST], root)


def test_a_column_is_as_wide_as_a_column(root):
    main(Build(names=("cost",), width="column", out=root / "narrow"), [COST], root)
    data = (root / "narrow" / "cost.png").read_bytes()
    assert int.from_bytes(data[16:20]) == int(style.COLUMN * style.DPI)
    assert (root / "narrow").resolve() != GALLERY


def test_tables_differ_beyond_the_last_digit_only():
    assert differing("a,b\n1.00000,x\n", "a,b\n1.00001,x\n") == ""
    assert differing("a,b\n1.0000,x\n", "a,b\n1.0001,x\n") == "has a=1.0000 in line 2, rebuilt 1.0001"
    assert differing("a\n1\n", "a\n") == "has 1 rows, rebuilt 0"
    assert differing("a\n1\n", "a\n1,2\n") == "has 1 cells in line 2, rebuilt 2"
    assert differing("a,b\n1,x\n", "a,b\n1,\n") == "has b=x in line 2, rebuilt nothing"
