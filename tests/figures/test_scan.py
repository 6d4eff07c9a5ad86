"""The scan figure: what is plotted is what the run holds, first layer at the bottom."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corrector.errors import UserError
from figures.drawn import Draw, main
from figures.scan import KINDS, VARIANTS, Table, draw, reported, table

LAYERS, TOKENS = 4, 7
NAMES = ("runs/first", "second")


def cells(seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        for variant in VARIANTS:
            for kind in KINDS:
                # Copies thin out: their last column is absent.
                for layer in range(LAYERS):
                    for token in range(TOKENS - (kind == "copy")):
                        mean = float(rng.normal() + layer)
                        same = {"corrector": name, "variant": variant, "kind": kind, "layer": layer, "token": token}
                        rows.append({**same, "mean": mean, "low": mean - 1, "high": mean + 1, "n": 20 - token})
    return rows


def curves(name: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    spans = [("direction", "prompt_last"), ("extent", "prompt_last"), ("written", "prompt_last")]
    for reader, span in [*spans, *(("output", f"output[{k}:{k + 1}]") for k in range(2))]:
        value = [0.5, 0.55, 0.9, 0.95]
        banded = reader != "written"
        statistic = {"extent": "spearman", "written": "share"}.get(reader, "auroc")
        out.append(
            {
                **{"run": "scan-0", "task": "dialogue", "corrector": name, "reader": reader, "span": span},
                **{"statistic": statistic, "value": value, "low": [v - 0.1 for v in value]},
                **{"high": [v + 0.05 for v in value], "null_low": 0.4 if banded else None},
                **{"null_high": 0.6 if banded else None, "onset": 2 if banded else None, "saturation": 3},
                **{"onset_draws": [2] * 40, "saturation_draws": [3] * 40, "n_items": 30, "n_problems": 30},
                "model_organism": True,
                "differs": 1.0,
            }
        )
    return out


def about(name: str) -> dict[str, Any]:
    counts = {"n_copy": 20, "n_correction": 21, "n_layers": LAYERS, "neutral": {"n": 300}}
    return {"corrector": name, "method": "diff_means", "span": "prompt_last", "model_organism": True, **counts}


RUN = {"name": "scan-0a1b2c3d", "task": "dialogue", "finished": True, "bound": 2.5}


def made(rows: list[dict[str, Any]] | None = None, names: tuple[str, ...] = NAMES) -> Table:
    lines = [c for name in names for c in curves(name)]
    return table(cells() if rows is None else rows, lines, [about(name) for name in names], RUN)


@pytest.fixture(scope="module")
def figure() -> Figure:
    return draw(made())


def meshes(figure: Figure) -> dict[str, tuple[Axes, Any]]:
    found = {c.get_gid(): (ax, c) for ax in figure.axes for c in ax.collections}
    return {gid: pair for gid, pair in found.items() if gid and gid.count("/") >= 2}


def test_the_table_is_the_rows_and_absent_cells_are_not_0() -> None:
    rows = cells()
    grids = made(rows).grids
    assert len(grids) == 8
    for (name, variant, kind), grid in grids.items():
        mine = [r for r in rows if (r["corrector"], r["variant"], r["kind"]) == (name, variant, kind)]
        assert grid.mean.shape == (LAYERS, TOKENS - (kind == "copy")) and len(mine) == grid.mean.size
        for r in mine:
            assert grid.mean[r["layer"], r["token"]] == r["mean"] and grid.n[r["token"]] == r["n"]
            assert grid.open[r["layer"], r["token"]] == (r["low"] <= 0 <= r["high"])
    holed = [r for r in rows if (r["layer"], r["token"]) != (1, 3)]
    mean = made(holed).grids["second", "z", "copy"].mean
    assert np.isnan(mean[1, 3]) and np.isnan(mean).sum() == 1


def test_every_mesh_shows_its_grid_with_the_first_layer_at_the_bottom(figure: Figure) -> None:
    grids, found = made().grids, meshes(figure)
    assert set(found) == {"/".join(key) for key in grids}
    for key, grid in grids.items():
        ax, mesh = found["/".join(key)]
        drawn = np.asarray(mesh.get_array()).reshape(grid.mean.shape)
        assert drawn == pytest.approx(grid.mean)
        corners = np.asarray(mesh.get_coordinates())
        assert corners[0, :, 1] == pytest.approx(-0.5) and corners[-1, :, 1] == pytest.approx(LAYERS - 0.5)
        bottom, top = ax.get_ylim()
        assert bottom == -0.5 < top  # row 0, layer 0, is the lowest on the page
        assert ax.get_xticklabels()[0].get_text() == "p"


def test_colours_are_symmetric_and_end_where_the_variant_says(figure: Figure) -> None:
    for gid, (_, mesh) in meshes(figure).items():
        assert mesh.get_clim() == ((-3.0, 3.0) if "/z/" in gid else (-2.5, 2.5))
        assert mesh.get_cmap().name == "RdBu_r"


def test_thin_cells_are_masked_counts_stand_above_and_open_intervals_are_dotted() -> None:
    holed = [r for r in cells() if (r["layer"], r["token"]) != (1, 3)]
    data = made(holed, NAMES[1:])
    ax, mesh = meshes(draw(data))["second/z/correction"]
    masked = np.ma.getmaskarray(mesh.get_array()).reshape(LAYERS, TOKENS)
    assert np.argwhere(masked).tolist() == [[1, 3]]
    assert [t.get_text() for t in ax.texts if t.get_gid() == "n"] == [str(20 - t) for t in range(TOKENS)]
    grid = data.grids["second", "z", "correction"]
    dots = next(line for line in ax.lines if line.get_gid() == "holds-0")
    expected = np.argwhere(grid.open & ~np.isnan(grid.mean))
    assert sorted(zip(dots.get_ydata(), dots.get_xdata(), strict=True)) == sorted(map(tuple, expected))


def test_changed_scores_change_the_picture() -> None:
    rows = [{**r, "mean": -r["mean"]} for r in cells()]
    gid = "second/z/copy"
    one, two = (np.asarray(meshes(draw(made(r)))[gid][1].get_array()) for r in (cells(), rows))
    assert one == pytest.approx(-two)


def test_curves_bands_chance_and_layers(figure: Figure) -> None:
    panels = [ax for ax in figure.axes if ax.get_xlabel() == "layer"]
    assert len(panels) == 6
    lines = {line.get_gid(): line for line in panels[0].lines}
    assert list(lines["direction"].get_ydata()) == [0.5, 0.55, 0.9, 0.95]
    assert {"written", "direction-saturation", "written-saturation", "direction-onset"} <= set(lines)
    assert "written-onset" not in lines
    assert lines["direction-onset"].get_xdata()[0] == 2 and lines["direction-saturation"].get_xdata()[0] == 3
    chance = [p for p in panels[0].patches if p.get_gid() == "chance"]
    assert [(p.get_y(), p.get_y() + p.get_height()) for p in chance] == [(0.4, pytest.approx(0.6))]
    band = next(c for c in panels[0].collections if c.get_gid() == "direction-band")
    y = band.get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == (pytest.approx(0.4), pytest.approx(1.0))
    assert "extent" in {line.get_gid() for line in panels[1].lines}
    assert {"output[0:1]", "output[1:2]"} <= {line.get_gid() for line in panels[2].lines}


def test_headings_and_footer_name_corrector_n_run_and_model_organism(figure: Figure) -> None:
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0].startswith(r"$\bf{first}$, dialogue") and titles[7].startswith(r"$\bf{second}$")
    assert titles[0].endswith("copy, z, n = 20") and "correction, published, n = 21" in titles
    assert "diff_means at prompt_last" in figure.get_supxlabel().replace("\n", " ")
    footer = figure.get_supxlabel()
    assert "scan-0a1b2c3d" in footer and "odel organism" in footer and "n = 300; 300" in footer.replace("\n", " ")


def test_a_corrector_without_extent_and_outputs_still_has_its_figure() -> None:
    kept = [c for c in curves("second") if c["reader"] not in ("extent", "output")]
    figure = draw(table(cells(), kept, [{**about("second"), "model_organism": False}], {**RUN, "finished": False}))
    footer = figure.get_supxlabel().replace("\n", " ")
    assert "not finished" in footer and "organism" not in footer
    assert any("rewrites are all alike" in t.get_text() for ax in figure.axes for t in ax.texts)


def test_cells_that_are_missing_altogether_are_refused() -> None:
    with pytest.raises(UserError, match="lacks the cells"):
        made([r for r in cells() if r["corrector"] != "second"])
    with pytest.raises(UserError, match="no finished corrector"):
        table([], [], [], RUN)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "scan-0a1b2c3d"
    folder.mkdir()
    kept = [{k: v for k, v in c.items() if k not in ("run", "model_organism")} for c in curves(NAMES[0])]
    for name, rows in (("scan", cells()), ("onset", kept)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "corrector-0.json").write_text(json.dumps(about(NAMES[0])))
    (folder / "config.json").write_text(json.dumps({"task": "dialogue", "bound": 2.5}))
    (folder / "DONE").write_text("{}")
    return folder


def test_the_same_run_gives_the_same_bytes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [run / name for name in ("figure.png", "figure.pdf", "summary.json")]
    main(Draw(run), reported, "figure")
    said = capsys.readouterr().out
    first = [file.read_bytes() for file in files]
    assert first[0].startswith(b"\x89PNG") and first[1].startswith(b"%PDF") and b"CreationDate" not in first[1]
    assert "figure.png" in said and "copy/rewrite" in said
    main(Draw(run), reported, "figure")
    assert [file.read_bytes() for file in files] == first


def test_no_run_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "figures.scan", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no config.json" in done.stderr
