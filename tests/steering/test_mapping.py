"""The map's run: which cells it has, how bands are chosen, and that a cut run ends with the same bytes."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from corrector import tasks
from corrector.errors import UserError
from corrector.models import load
from corrector.records import RunFolder
from steering import mapping
from steering.mapping import Map, run
from steering.maps.bands import bands, choose, dose, means
from steering.sweeping.cells import Cell, Setting, correct

ITEMS, VALIDATION = 3, 2


@pytest.fixture(scope="module")
def vector(dialogue_vector):
    """Layers of dose 0.5 and 2, so that per dose and per coef differ."""
    return dataclasses.replace(dialogue_vector, card={"layers": {"0": {"dose": 0.5}, "1": {"dose": 2.0}}})


@pytest.fixture(scope="module")
def config(dialogue_folder, vector, tmp_path_factory):
    file = vector.save(tmp_path_factory.mktemp("vector") / "v.safetensors")
    return Map(
        corrector=str(dialogue_folder),
        vector=file,
        coef=(-1.0, 1.0),
        layers=(0, 1),
        band=2,
        controls=1,
        items=ITEMS,
        validation=VALIDATION,
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    return run(dataclasses.replace(config, out=tmp_path_factory.mktemp("runs") / "map"))


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_bands_are_runs_of_neighbours():
    assert bands((0, 1, 2), 2) == [(0,), (1,), (2,), (0, 1), (1, 2)]
    assert bands((4, 0, 1, 3), 9) == [(0,), (1,), (3,), (4,), (0, 1), (3, 4)]
    for n in range(1, 6):
        assert len(bands(range(6), n)) == sum(6 - k for k in range(n))


def test_doses_of_a_band_add_and_are_missing_where_nobody_knows(vector, dialogue_vector):
    assert dose(vector, (0,), -2.0) == 1.0 and dose(vector, (0, 1), 1.0) == 2.5
    assert dose(vector, (0,), 0.0) == 0.0
    assert dose(dialogue_vector, (0,), 1.0) is None and dose(vector, (0,), 1.0, "ablate") is None


def planted(slopes, formed):
    """Validation rows in which a band's edit ratio is 1 + slope·coef."""
    for item in (0, 1):
        yield {"layers": [], "direction": "none", "coef": 0.0, "edit_ratio": 1.0 + item, "well_formed": True}
    for layers, slope in slopes.items():
        for coef in (-2.0, 2.0):
            for item in (0, 1):
                ratio = 1.0 + item + slope * coef
                mine = {"layers": [*layers], "direction": "correction", "coef": coef, "edit_ratio": ratio}
                yield {**mine, "well_formed": formed.get(layers, True)}


def test_the_band_of_largest_slope_per_dose_is_chosen_on_validation(vector):
    slopes = {(0,): 0.2, (1,): 0.4, (0, 1): 0.45}
    found = {tuple(b["layers"]): b for b in choose([*planted(slopes, {})], vector)}
    assert {k: b["slope"] for k, b in found.items()} == pytest.approx(slopes)
    assert [found[k]["slope_per_dose"] for k in slopes] == pytest.approx([0.4, 0.2, 0.18])
    assert [k for k, b in found.items() if b["best"]] == [(0,)]
    assert [k for k, b in found.items() if b["chosen"]] == [(0,), (0, 1)]
    # Text that falls apart loses to text that does not, however steep its slope.
    broken = choose([*planted(slopes, {(0,): False})], vector)
    assert [tuple(b["layers"]) for b in broken if b["best"]] == [(1,)]
    without = choose([*planted(slopes, {})], vector, "ablate")
    assert [tuple(b["layers"]) for b in without if b["best"]] == [(0, 1)] and without[0]["slope_per_dose"] is None


def test_means_keep_both_errors_apart():
    made = [(False, True), (False, False), (False, False), (True, True), (None, True)]
    cell = [
        {"is_wrong": wrong, "copied": copied, "problem": i, "edit_ratio": 0.5 * i, "well_formed": True, "kl": None}
        for i, (wrong, copied) in enumerate(made)
    ]
    out = means(cell)
    assert (out["n"], out["n_right"], out["n_wrong"]) == (5, 3, 1)
    assert out["false_rewrite"] == pytest.approx(2 / 3) and out["missed_rewrite"] == 1.0
    assert out["copied"] == pytest.approx(0.6) and out["edit_ratio"] == 1.0
    assert out["kl"] is None and out["missed_rewrite_low"] is None
    assert out["edit_ratio_low"] < 1 < out["edit_ratio_high"]


def test_cells_are_bands_on_validation_then_layers_bands_and_nulls_on_test(finished):
    cells = [(r["split"], tuple(r["layers"]), r["direction"], r["coef"]) for r in rows(finished, "map")]
    places, ends = [(0,), (1,), (0, 1)], (-1.0, 1.0)
    expected = [("validation", (), "none", 0.0)]
    expected += [("validation", k, "correction", c) for k in places for c in ends]
    expected += [("test", (), "none", 0.0), *(("test", k, "correction", c) for k in places for c in ends)]
    expected += [("test", k, "random-00", c) for k in places for c in ends]
    assert cells == expected
    counts = [VALIDATION if split == "validation" else ITEMS for split, *_ in cells]
    assert [r["n"] for r in rows(finished, "map")] == counts and len(rows(finished, "edits")) == sum(counts)
    assert {r["question"] for r in rows(finished, "edits") if r["split"] == "test"}.isdisjoint(
        r["question"] for r in rows(finished, "edits") if r["split"] == "validation"
    )
    by = {(r["split"], tuple(r["layers"]), r["direction"], r["coef"]): r for r in rows(finished, "map")}
    assert by["test", (0, 1), "correction", -1.0]["dose"] == 2.5 and by["test", (1,), "correction", 1.0]["layer"] == 1
    assert by["test", (0, 1), "correction", 1.0]["layer"] is None
    assert all((r["kl"] or 0) > 0 for r in by.values() if r["split"] == "test" and r["coef"])


def test_every_cell_is_what_correct_gives_there(finished, config, vector):
    lm, task = load(config.corrector), tasks.get("dialogue")
    pairs = task.pairs("test", ITEMS, 0)
    edits = [r for r in rows(finished, "edits") if r["split"] == "test"]
    for layers in ((1,), (0, 1)):
        alone = correct(lm, task, pairs, Cell("correction", 1.0, vector), Setting(layers, "prompt_last"))
        mine = [r for r in edits if (tuple(r["layers"]), r["direction"], r["coef"]) == (layers, "correction", 1.0)]
        assert [r["correction"] for r in mine] == [r["correction"] for r in alone]
        assert [r["applied"] for r in mine] == [len(layers)] * ITEMS
    plain = [r["correction"] for r in edits if r["direction"] == "none"]
    assert plain != [r["correction"] for r in edits if (r["layers"], r["coef"]) == ([1], 1.0)][:ITEMS]


def test_a_cut_run_ends_with_the_same_bytes(finished, config, tmp_path, monkeypatch):
    here = dataclasses.replace(config, out=tmp_path / "cut")
    append, left = RunFolder.append, [2]

    def cut(folder, name, lines):
        left[0] -= 1
        if not left[0]:
            append(folder, name, [*lines][:1])  # the kill came while a cell's rows were written
            raise KeyboardInterrupt
        append(folder, name, lines)

    monkeypatch.setattr(mapping.RunFolder, "append", cut)
    with pytest.raises(KeyboardInterrupt):
        run(here)
    monkeypatch.undo()
    run(here)
    for name in ("edits.jsonl", "map.jsonl", "bands.json", "DONE"):
        assert (here.out / name).read_bytes() == (finished / name).read_bytes()
    monkeypatch.setattr(mapping, "prepare", None)  # a finished run loads nothing
    assert run(here) == here.out


def test_a_map_fits_its_own_vector_on_train(config, dialogue_lm, vector, tmp_path, monkeypatch):
    asked = []

    def contrast(lm, task, split, n, seed, name):
        asked.append((split, n, name))
        return split

    def extract(lm, train, held, methods, spans, seed, n_resamples):
        assert (train, held) == ("train", "validation")
        return {("lat", "last"): vector}

    monkeypatch.setattr(mapping, "contrast_under", contrast)
    monkeypatch.setattr(mapping, "extract_vectors", extract)
    own = dataclasses.replace(
        config,
        vector=None,
        method="lat",
        read="last",
        coef=(1.0,),
        band=1,
        controls=0,
        layers=(0,),
        items=2,
        fit_on="later",
        measure_on="first",
        out=tmp_path,
    )
    folder = run(own)
    assert asked == [("train", 120, "later"), ("validation", 30, "later")]
    for row in rows(folder, "edits"):
        assert bool(row["prefix"]) == (row["split"] == "validation")
    saved = mapping.SteeringVector.load(folder / "vector.safetensors")
    assert torch.equal(saved.at(1), vector.at(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coef": (0.0,)}, "no range"),
        ({"coef": (float("nan"), 1.0)}, "not finite"),
        ({"band": 0}, "band=0"),
        ({"layers": (0, 7)}, r"not in 0\.\.1"),
        ({"span": "nowhere"}, "span"),
        ({"items": 1}, "items=1"),
        ({"fit_on": "long"}, "task 'arithmetic'"),
        ({"vector": Path("nothing.safetensors")}, "no file"),
    ],
)
def test_mistakes_cost_no_run(config, change, said, tmp_path):
    with pytest.raises(UserError, match=said):
        run(dataclasses.replace(config, out=tmp_path / "never", **change))
    assert not (tmp_path / "never").exists()


def test_a_coefficient_that_is_no_number_is_said_before_a_run_is_named(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not finite"):
        run(dataclasses.replace(config, coef=(float("inf"),), out=Path()))
    assert not (tmp_path / "runs").exists()
