"""Ablations: statistics of a run whose numbers are known, and the command itself at a small size."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from analysis.ablations import ablation_statistics, load_ablations, report
from analysis.claims.found import read
from analysis.experiments import trials
from analysis.experiments.measured import Measured, auroc_parts, measured
from analysis.experiments.variants import Ablations, check, jobs, variants
from analysis.experiments.verbosity import verbosity
from corrector import train as training
from corrector.errors import UserError
from corrector.records import read_rows
from corrector.statistics import bootstrap_mean
from tests.analysis.ablation_rows import HELPFUL, write_rounds, write_run


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A run whose numbers are known."""
    return write_run(tmp_path_factory.mktemp("runs") / "known")


def points(run):
    return {(p["name"], p["measure"]): p for p in ablation_statistics(run)["points"]}


# Statistics


def test_rates_are_of_the_sentences_that_they_are_about(known):
    of = points(known)
    for name, false, ratio in (("base", 0.0, 0.5), ("identity 0", 1.0, 1.0)):
        assert (of[name, "false_rewrite"]["mean"], of[name, "false_rewrite"]["n"]) == (false, 4)
        assert (of[name, "missed_rewrite"]["mean"], of[name, "missed_rewrite"]["n"]) == (0.0, 4)
        assert (of[name, "edit_ratio"]["mean"], of[name, "edit_ratio"]["n"]) == (ratio, 8)
        assert of[name, "valid"]["mean"] == pytest.approx(7 / 8)
        assert of[name, "rewritten_bad"]["mean"] == 1.0 and (name, "copied_good") not in of
    assert ("start", "edit_ratio") not in of and ("temperature 2", "edit_ratio") not in of


def test_gains_are_over_the_upstream_alone_and_differences_to_the_base_of_the_variant(known):
    of = points(known)
    for name, gain in HELPFUL.items():
        point = of[name, "gain_helpful"]
        assert point["mean"] == pytest.approx(gain + 0.0625) and point["seeds"] == [gain, gain + 0.125]
        assert (point["seed_low"], point["seed_high"], point["n_seeds"], point["n"]) == (gain, gain + 0.125, 2, 8)
        assert point["mean_low"] == pytest.approx(gain) and point["mean_high"] == pytest.approx(gain + 0.125)
    assert of["identity 0", "gain_helpful"]["difference"] == pytest.approx(-0.75)
    assert of["temperature 2", "gain_helpful"]["difference"] == pytest.approx(-0.5)
    assert "difference" not in of["base", "gain_helpful"] and "difference" not in of["own upstream", "gain_helpful"]


def test_directions_have_auroc_and_slopes(known):
    of = points(known)
    assert of["base", "auroc"]["mean"] == 1.0 and of["start", "auroc"]["mean"] == pytest.approx(0.5)
    assert of["start", "auroc"]["difference"] == pytest.approx(-0.5)
    assert of["base", "slope"]["mean"] == pytest.approx(0.5) and of["base", "slope"]["n"] == 3
    assert of["base", "random slope"]["mean"] == pytest.approx(0.1), "the steepest, turned so that it rises"


def test_findings_name_variant_and_measure(known):
    found = {f.key: f for f in read(ablation_statistics(known)["findings"])}
    rewrites = found["ablation/identity 0/false_rewrite"]
    assert (rewrites.value, rewrites.low, rewrites.significant, rewrites.n) == (1.0, 1.0, True, 4)
    assert rewrites.subject == "dialogue" and "less base, 2 training seeds" in rewrites.note
    assert found["ablation/identity 0/slope"].value == 0 and found["ablation/identity 0/slope itself"].value == 0.5
    assert found["ablation/start/auroc itself"].null == 0.5 and not found["ablation/start/auroc itself"].significant
    assert "ablation/base/false_rewrite" not in found and "ablation/base/gain_helpful itself" in found


def test_parts_of_the_auroc_have_its_mean_and_its_spread():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=200)
    rewritten, copied = 1.0 + shared + rng.normal(size=200), shared + rng.normal(size=200)
    copied[:20] = rewritten[20:40]  # ties
    parts = auroc_parts(rewritten, copied)
    scores, labels = np.concatenate([rewritten, copied]), np.repeat([1, 0], 200)
    assert parts.mean() == pytest.approx(roc_auc_score(labels, scores))
    drawn = [rng.integers(0, 200, 200) for _ in range(400)]
    areas = [roc_auc_score(labels, np.concatenate([rewritten[i], copied[i]])) for i in drawn]
    ends = bootstrap_mean(parts)
    assert [ends.low, ends.high] == pytest.approx(np.quantile(areas, [0.025, 0.975]).tolist(), abs=0.012)


def test_a_measure_is_over_the_problems_that_every_seed_has_and_differences_over_shared_ones():
    table = measured({0: {"a": 1.0, "b": None, "c": 3.0}, 1: {"a": 2.0, "b": 5.0, "c": 4.0}})
    assert table is not None and table.problems == ("a", "c") and table.values.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    other = Measured((1, 2), ("c", "d"), np.array([[1.0, 9.0], [7.0, 9.0]]))
    less = table.less(other)
    assert less is not None and (less.seeds, less.problems, less.values.tolist()) == ((1,), ("c",), [[3.0]])
    assert table.less(Measured((5,), ("a",), np.zeros((1, 1)))) is None
    assert measured({0: {"a": None}, 1: {"a": 1.0}}) is None


def test_verbosity_is_the_slope_of_tokens_over_rounds(tmp_path):
    run = write_rounds(tmp_path / "rounds")
    rows, (slope,) = verbosity([run])
    assert [(r["k"], r["mean"]) for r in rows] == [(0, 13.5), (1, 16.5), (2, 19.5), (None, 28.5)]
    assert slope.value == pytest.approx(3.0) and slope.low == pytest.approx(3.0) and slope.n == 8
    assert (slope.key, slope.subject) == ("ablation/verbosity dialogue stream/tokens a round", "one")
    assert "k = 0..2, run rounds" in slope.note


def test_the_report_writes_what_it_prints_and_names_a_run_that_is_not_there(tmp_path):
    run = write_run(tmp_path / "run", (write_rounds(tmp_path / "rounds"), tmp_path / "nowhere"))
    out = io.StringIO()
    numbers = report(run, Console(file=out, width=220))
    assert json.loads((run / "statistics.json").read_text()) == numbers
    assert len((run / "summary.csv").read_text().splitlines()) == len(numbers["points"]) + 1
    text = out.getvalue()
    for part in ("false_rewrite (n = 4)", "1.00 [1.00, 1.00] 1.00..1.00", "0.31 [0.25, 0.38] 0.25..0.38", "nowhere"):
        assert part in text
    assert "tokens a round 3.00 [3.00, 3.00], n = 8" in text


def test_another_folder_is_refused_and_reading_needs_no_torch(tmp_path):
    with pytest.raises(UserError, match=r"is no finished run of analysis\.ablations; run its command"):
        load_ablations(tmp_path)
    code = "import sys, analysis.ablations; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# What is varied


def test_a_base_goes_before_what_is_compared_with_it():
    names = [v.name for v in variants(Ablations(only=("noise", "upstream"), noise=(0.1,), temperature=(2.0,)))]
    assert names == [
        "base",
        "noise 0.1",
        "own upstream",
        "temperature 2",
        "upstream dialogue-sft-0",
        "upstream dialogue-dpo-0",
    ]
    assert next(v.name for v in variants(Ablations(only=("upstream",)))) == "own upstream"
    found = [(j.variant.name, j.seed) for j in jobs(Ablations(only=("untrained",), seeds=(3, 5)))]
    assert found == [("base", None), ("base", 3), ("base", 5), ("start", 3), ("start", 5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": 300}, "items=300 of 200 pairs"),
        ({"controls": 0}, "controls=0 is below 1"),
        ({"seeds": (1, 1)}, "give at least one, and each once"),
        ({"noise": (0.1, 0.1)}, "'noise 0.1' is asked for twice"),
        ({"train": replace(Ablations().train, noise=0.2)}, "train.noise is what 'noise 0.1' varies"),
        ({"train": replace(Ablations().train, init="dialogue-0")}, "init has no use here"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check(replace(Ablations(), **changes))


# The command


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The command's own run: base, no identity data and pairs of sentences, in two steps of training."""
    base = Ablations()
    sizes = {"d": 16, "layers": 2, "heads": 2, "ff": 16, "steps": 2, "batch": 2}
    config = replace(
        base,
        **{"only": ("identity", "unit"), "identity": (0.0,), "unit": (2,), "seeds": (0,), "rounds": ()},
        **{"start": replace(base.start, **sizes), "train": replace(base.train, **sizes)},
        **{"problems": 2, "pairs": 3, "items": 2, "fit": 4, "controls": 1, "max_rounds": 2, "max_tokens": 30},
        out=tmp_path_factory.mktemp("runs") / "tiny",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "training_texts", partial(training.training_texts, n=1500))
        trials.run(config)
        yield config, patch


def test_a_run_trains_every_variant_once_and_measures_them_alike(tiny):
    config, _ = tiny
    rows = {name: read_rows(config.out, name) for name in ("models", "edits", "directions", "steered", "answers")}
    names = ("base", "identity 0", "2 sentences")
    assert [r["variant"] for r in rows["models"]] == [*names]
    assert len({r["weights"] for r in rows["models"]}) == 3 and all(r["model_organism"] for r in rows["models"])
    assert sorted(p.name for p in (config.out / "models").iterdir()) == [
        *("2-sentences-0", "base-0", "identity-0-0", "start-0")
    ]
    assert [(r["variant"], r["seed"]) for r in rows["answers"]] == [
        (name, seed) for name in names for seed in (None, 0) for _ in range(2)
    ]
    assert {name: len(of) for name, of in rows.items() if name not in ("models", "answers")} == {
        **{"edits": 9, "directions": 6, "steered": 6}
    }
    last = {v: [r["last"] for r in rows["edits"] if r["variant"] == v] for v in names}
    assert last["base"] == last["identity 0"] and max(map(len, last["2 sentences"])) > max(map(len, last["base"]))
    assert all(len(curve) == 3 for r in rows["steered"] for curve in r["edit_ratio"].values())
    assert {p["name"] for p in ablation_statistics(config.out)["points"]} == {*names}


def test_a_killed_run_goes_on_to_the_same_bytes_without_training_again(tiny):
    config, patch = tiny
    files = sorted(config.out.glob("*.jsonl"))
    before = [file.read_bytes() for file in files]
    (config.out / "DONE").unlink()
    for file in files:
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:5])
    patch.setattr(trials, "run_resolved", lambda _: pytest.fail("trained again"))
    trials.run(config)
    assert [file.read_bytes() for file in files] == before


def test_a_checkpoint_of_another_config_is_refused(tiny):
    config, _ = tiny
    with pytest.raises(UserError, match="start-0 was trained with another steps"):
        trials.trained(replace(trials.start_of(config, 0), steps=7))
