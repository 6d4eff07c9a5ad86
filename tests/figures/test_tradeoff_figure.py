"""The trade-off figure: what is plotted is what the numbers say."""

import pytest

from figures import tradeoff

COEFS = (-1.0, 0.0, 1.0)


def point(coef, false, missed):
    ends = {
        f"{name}{end}": value
        for name, value in (("false_rewrite", false), ("missed_rewrite", missed))
        for end in ("", "_low", "_high")
    }
    return {"coef": coef, "usable": coef < 1, **ends}


def front_row(coef, cost, gain, on_front):
    sides = {"cost": cost, "cost_low": cost - 0.1, "cost_high": cost + 0.2, "gain": gain}
    return {"coef": coef, **sides, "gain_low": gain - 0.1, "gain_high": None, "on_front": on_front}


@pytest.fixture
def numbers():
    whole = {"n": 3, "slope": 0.5, "slope_low": 0.1, "slope_high": 0.9, "wrong_way": 1 / 3, "unmoved": 0.0}
    whole |= {"wrong_way_low": None, "wrong_way_high": None, "quantiles": [0, 0, 0]}
    toy = {
        **{"n_items": 9, "n_right": 5, "n_wrong": 4, "model_organism": True},
        "roc": [point(-1.0, 0.1, 0.9), point(0.0, 0.2, 0.3), point(1.0, 0.8, 0.0)],
        "area": {"reached_from": 0.1, "reached_to": 0.2, "area_reached": 0.04, "over_chance": 0.2}
        | {"over_chance_low": 0.1, "over_chance_high": 0.3},
        "controls": {"random-00": [{"coef": c, "false_rewrite": 0.2, "missed_rewrite": 0.3 + c / 10} for c in COEFS]},
        "items": {"slopes": [1.0, -0.5, 1.0], "all": whole, "copied": None, "rewritten": whole},
        "flips": {"sentence": [{"coef": c, "n": 10, "better": 2, "worse": 5, "p": 0.4} for c in (-1.0, 1.0)]},
        "pareto": {
            "edit_ratio/correct": [
                front_row(-1.0, 0.5, 0.2, True),
                front_row(0.0, 1.0, 0.6, True),
                front_row(1.0, 2.0, 0.4, False),
            ]
        },
    }
    bare = {**toy, "roc": [], "area": None, "controls": {}, "items": None, "flips": {}, "pareto": {}}
    return {"run": "sweep-0a1b", "finished": True, "tasks": {"toy_1": toy, "bare": bare}}


def lines(ax):
    return {str(line.get_gid()): tuple(map(list, line.get_data())) for line in ax.lines}


def test_both_errors(numbers):
    figure = tradeoff.draw(tradeoff.table(numbers))
    plotted = lines(figure.axes[0])
    assert plotted["roc"] == ([0.1, 0.2, 0.8], pytest.approx([0.1, 0.7, 1.0]))
    assert plotted["unsteered"] == ([0.2], pytest.approx([0.7])) and plotted["unusable"] == ([0.8], [1.0])
    assert plotted["random-00"] == ([0.2] * 3, pytest.approx([0.8, 0.7, 0.6]))
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert {"-1", "0", "+1"} <= {*texts} and any("reached 0.10 to 0.20: 0.040" in t for t in texts)
    footer = figure.get_supxlabel()
    assert "sweep-0a1b" in footer and "odel organism" in footer


def test_slopes_are_sorted_and_flips_go_both_ways(numbers):
    axes = tradeoff.draw(tradeoff.table(numbers)).axes
    plotted = lines(axes[1])
    assert plotted["slopes"][1] == [-0.5, 1.0, 1.0] and plotted["mean"][1] == [0.5, 0.5]
    assert any(t.get_text().startswith("33%") for t in axes[1].texts)
    heights = [bar.get_height() for group in axes[2].containers for bar in group]
    assert heights == [0.2, 0.2, -0.5, -0.5]


def test_fronts_join_what_is_not_dominated(numbers):
    plotted = lines(tradeoff.draw(tradeoff.table(numbers)).axes[3])
    assert plotted["edit_ratio/correct"] == ([0.5, 1.0], [0.2, 0.6])
    assert plotted["edit_ratio/correct-dominated"] == ([2.0], [0.4])


def test_points_that_coincide_share_a_label(numbers):
    rows = numbers["tasks"]["toy_1"]["pareto"]["edit_ratio/correct"]
    rows[1] |= {"cost": 0.51, "gain": 0.2}
    labels = [t.get_text() for t in tradeoff.draw(tradeoff.table(numbers)).axes[3].texts if t.get_gid() == "coef"]
    assert labels == ["-1, 0", "+1"]


def test_what_is_missing_is_said_and_not_drawn(numbers):
    figure = tradeoff.draw(tradeoff.table(numbers))
    bare = figure.axes[4:]
    assert "no align loop" in bare[0].get_title(loc="left") and len(bare) == 3
    for ax, text in zip(bare, ("no labels", "fewer than 2 usable", ""), strict=True):
        assert text in " ".join(t.get_text() for t in ax.texts) and not {"roc", "slopes"} & {*lines(ax)}
