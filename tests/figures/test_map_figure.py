"""The map figure: what is plotted is what the numbers say, first layer at the bottom."""

import numpy as np
import pytest

from figures import map as figure_map

COEFS = [-1.0, 0.0, 1.0]


def place(layers, slope, dose, best=False):
    return {
        **{"layers": layers, "dose": dose, "slope_ends": slope, "slope_ends_low": slope - 0.1},
        **{"slope_ends_high": slope + 0.1, "null_slopes": {"random-00": 0.05, "random-01": -0.02}, "best": best},
    }


@pytest.fixture
def numbers():
    cells = [
        {"layers": [k], "coef": c, "edit_ratio": 1 + (k + 1) * c / 10, "well_formed": 0.5 if k == 2 and c > 0 else 1.0}
        for k in (0, 1, 2)
        for c in COEFS
    ]
    return {
        **{"run": "map-0a1b", "task": "toy", "corrector": "/models/toy-0", "model_organism": True, "n_items": 9},
        **{
            "method": "lat",
            "read": "last",
            "span": "output",
            "operator": "add",
            "fit_on": "short",
            "measure_on": "long",
            "n_questions": 8,
            "unsteered": 1.0,
        },
        **{"coefs": COEFS, "cells": [*cells, {**cells[0], "layers": [0, 1]}]},
        "places": [place([k], (k + 1) / 10, k + 1.0) for k in (0, 1, 2)] + [place([0, 1], 0.25, 3.0, best=True)],
    }


def by_gid(ax):
    return {str(line.get_gid()): tuple(map(list, line.get_data())) for line in ax.lines}


def test_heat_maps_have_the_first_layer_at_the_bottom(numbers):
    table = figure_map.table(numbers)
    axes = figure_map.draw(table).axes
    for ax, name in zip(axes[:2], ("edit_ratio", "well_formed"), strict=True):
        mesh = next(c for c in ax.collections if c.get_gid() == name)
        plotted = {"edit_ratio": table.ratio, "well_formed": table.formed}[name]
        assert np.asarray(mesh.get_array()).tolist() == plotted.tolist()
        assert ax.get_ylim() == (-0.5, 2.5) and [t.get_text() for t in ax.get_yticklabels()] == ["0", "1", "2"]
        assert [t.get_text() for t in ax.get_xticklabels()] == ["-1", "0", "+1"]
    assert table.ratio[2].tolist() == pytest.approx([0.7, 1.0, 1.3])
    low, high = axes[0].collections[0].get_clim()
    assert (low + high) / 2 == pytest.approx(1.0) and high == pytest.approx(1.3)
    assert [t.get_text() for t in axes[0].texts if t.get_text().startswith("(")] == ["(1.30)"]


def test_slopes_nulls_and_bands(numbers):
    slope, per_dose = (by_gid(ax) for ax in figure_map.draw(figure_map.table(numbers)).axes[2:])
    assert slope["slope_ends"] == (pytest.approx([0.1, 0.2, 0.3]), [0, 1, 2])
    assert slope["null"] == (pytest.approx([0.05, -0.02] * 3), [0, 0, 1, 1, 2, 2])
    assert slope["band-0-1"] == ([0.25, 0.25], [-0.25, 1.25])
    assert per_dose["slope_per_dose"][0] == pytest.approx([0.1] * 3)
    assert per_dose["null"][0] == pytest.approx([0.05, -0.02, 0.025, -0.01, 0.05 / 3, -0.02 / 3])
    assert per_dose["band-0-1"][0] == pytest.approx([0.25 / 3] * 2)


def test_title_and_footer_say_whose_map_it_is(numbers):
    figure = figure_map.draw(figure_map.table(numbers))
    title, footer = figure.get_suptitle().replace("\n", " "), figure.get_supxlabel()
    assert (
        "toy, toy-0: lat read at last, add at output, n = 9 items of 8 questions, fitted on short, measured on long"
        in title
    )
    assert "map-0a1b" in footer and "odel organism" in footer and "validation" in footer
