"""Figures of methods, sizes and latency: every number of the statistics is drawn where it stands."""

import pytest

from figures import latency, methods, sizes


def interval(name, value):
    return {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}


def lines(figure):
    return {line.get_gid(): line for ax in figure.axes for line in ax.get_lines() if line.get_gid()}


def check_axes(figure, n):
    assert all(ax.get_xlabel() for ax in figure.axes)
    assert any(f"n = {n}" in ax.get_title(loc="left") for ax in figure.axes)
    below = " ".join(figure.get_supxlabel().split())
    assert "Run r" in below and "model organisms" in below.lower()


def test_methods_are_drawn_at_their_means_the_first_on_top():
    points = [
        {"outcome": o, "method": m, "n": 7, "n_seeds": 2, "seeds": [interval("mean", v), interval("mean", v + 0.2)]}
        | interval("mean", v)
        for o in ("helpful", "tokens")
        for m, v in (("upstream", 1.0), ("stream", 2.0), ("sft", 3.0))
    ]
    numbers = {"run": "r", "task": "dialogue", "systems": [{"model_organism": True}], "points": points}
    figure = methods.draw(methods.table(numbers))
    drawn = lines(figure)
    for p in points:
        line = drawn[f"mean-{p['outcome']}-{p['method']}"]
        assert list(line.get_xdata()) == [p["mean"]]
    assert drawn["mean-helpful-upstream"].get_ydata()[0] == 0
    low, high = figure.axes[0].get_ylim()
    assert low > high, "the first method stands on top"
    check_axes(figure, 7)


def test_gain_against_cost_has_a_line_a_corrector_in_every_panel():
    points = [
        {"corrector": c, "n_parameters": n, "k": k, "n": 9, "n_seeds": 2, "correct_seeds": [g - 0.1, g + 0.1]}
        | interval("correct_gain", g)
        | interval("seconds", g + n)
        | interval("work", 2 * g + n)
        for c, n in (("s", 10), ("l", 20))
        for k, g in ((0, 0.0), (1, 0.3), (None, 0.5))
    ]
    correctors = [{"corrector": c, "outcomes": ["correct"], "model_organism": True} for c in ("s", "l")]
    figure = sizes.draw(sizes.table({"run": "r", "points": points, "correctors": correctors}))
    drawn = lines(figure)
    assert len(drawn) == 2 * 3 * 2
    assert list(drawn["correct/k/l/seed"].get_ydata()) == pytest.approx([0.1, 0.4, 0.6]), "the last of the two seeds"
    assert list(drawn["correct/work/l"].get_xdata()) == [20, 20.6, 21.0]
    assert list(drawn["correct/k/s"].get_ydata()) == [0.0, 0.3, 0.5]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "1", "all"]
    check_axes(figure, 9)


def test_waiting_is_drawn_by_length_of_the_question_from_zero():
    points = [
        {"decoding": how, "length": n, "measure": m, "question_tokens": n + 8, "n": 5}
        | interval("stream", 10 + n)
        | interval("aligner", 30 + n)
        | interval("ratio", 3)
        for how in ("fast", "plain")
        for m in ("first", "per_token", "whole")
        for n in (100, 0)
    ]
    figure = latency.draw(latency.table({"run": "r", "model_organism": True, "points": points}))
    drawn = lines(figure)
    assert len(drawn) == 3 * 2 * 2
    assert list(drawn["first/plain/aligner"].get_xdata()) == [8, 108]
    assert list(drawn["first/plain/aligner"].get_ydata()) == [30, 130]
    assert all(ax.get_ylim()[0] == 0 and ax.get_ylabel() for ax in figure.axes)
    assert "Run r" in figure.get_supxlabel()
