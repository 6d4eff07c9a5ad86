"""Gain against cost: the counts of a small run, and convergence of curves that are known."""

import json
import shutil

import numpy as np
import pytest
import torch

from analysis.curves.gains import columns, converged
from analysis.experiments.costs import Sizes, run
from analysis.experiments.meter import metered
from analysis.experiments.systems import trained
from analysis.rounds import load_answers
from analysis.sizes import report, sizes_statistics
from corrector import tasks
from corrector.errors import UserError
from corrector.models import load
from figures import sizes as figure

SMALL = {"corrector": ("arithmetic-s", "arithmetic-m"), "rounds": 1, "problems": 3}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(Sizes(**SMALL, out=tmp_path_factory.mktemp("runs") / "sizes"))


def test_every_corrector_and_k_has_a_cost_and_no_corrector_is_fed_where_it_does_not_act(finished):
    rows, correctors = load_answers(finished)
    assert len(rows) == 2 * 3 * 3 and [c["corrector"] for c in correctors] == ["arithmetic-s", "arithmetic-m"]
    for row in rows:
        assert row["seconds"] > 0 and row["upstream_tokens"] > 0
        assert (row["corrector_tokens"] == 0) == (row["k"] == 0)
    of = columns(rows, correctors[1:])
    assert of["work"].shape == (3, 1, 3) and (of["work"][2] > of["work"][0]).all()


def test_larger_correctors_cost_more_and_findings_name_what_the_claims_ask(finished, capsys):
    numbers = sizes_statistics(finished)
    ratio = {f["subject"]: f["value"] for f in numbers["findings"] if f["key"] == "arithmetic/sizes/work ratio"}
    assert 1 < ratio["arithmetic-s"] < ratio["arithmetic-m"]
    keys = {f["key"] for f in numbers["findings"]}
    assert {"arithmetic/sizes/correct/larger", "arithmetic/sizes/correct/later"} <= keys
    report(finished)
    assert "3 problems one at a time" in capsys.readouterr().out
    assert (finished / "summary.csv").read_text().count("\n") == 7


def test_convergence_is_the_first_k_that_reaches_nine_tenths():
    gains = np.repeat(np.array([[[0.0]], [[0.5]], [[0.9]], [[1.0]]]), 4, axis=2)
    k, draws = converged(gains)
    assert k == 2 and set(draws) == {2}
    assert converged(gains[::-1])[0] == 0, "with no gain at the end the first k has reached it"


def test_fed_tokens_are_those_of_the_forwards_and_a_model_counts_once():
    lm = load("arithmetic-s")
    ids = lm.encode(tasks.get("arithmetic").problems("test", 1)[0].question, "", "").ids
    with metered([lm]) as cost:
        lm.model(input_ids=torch.tensor([ids, ids]))
        lm.model(torch.tensor([ids[:3]]))
    assert cost.tokens == [2 * len(ids) + 3] and cost.seconds > 0
    with metered([lm]) as again:
        pass
    assert again.tokens == [0], "hooks of the last measurement are gone"
    with pytest.raises(UserError, match="given twice"), metered([lm, lm]):
        pass


@pytest.mark.parametrize("change", [{"rounds": 0}, {"problems": 1}, {"corrector": ()}, {"task": ("a", "b")}])
def test_impossible_sizes_are_refused(change, tmp_path):
    with pytest.raises(UserError, match="choose 1 and 2 at least"):
        run(Sizes(**{**SMALL, **change}, out=tmp_path / "run"))


def edited(folder, change):
    """Rewrite the rows and the correctors of a run by `change(row)`."""
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    about = json.loads((folder / "about.json").read_text())
    for row in (*rows, *about["correctors"]):
        change(row)
    (folder / "answers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "about.json").write_text(json.dumps(about))


@pytest.fixture
def seeded(finished, tmp_path):
    """The run with `arithmetic-m` told to be another training seed of `arithmetic-s`, by the name of its recipe."""
    folder = tmp_path / "seeded"
    shutil.copytree(finished, folder)

    def change(row):
        row["size"] = "arithmetic-s"
        if row["corrector"] == "arithmetic-m":
            row["corrector"] = "arithmetic-s-1"
        if "n_parameters" in row:
            row["n_parameters"] = 210880

    edited(folder, change)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"corrector": ["arithmetic-s,arithmetic-s-1"]}))
    return folder


def test_training_seeds_of_a_size_are_one_line_with_the_mean_of_both(finished, seeded):
    apart = {(p["corrector"], p["k"]): p for p in sizes_statistics(finished)["points"]}
    together = sizes_statistics(seeded)["points"]
    assert [p["n_seeds"] for p in together] == [2, 2, 2] and len(apart) == 6
    for p in together:
        of = [apart[name, p["k"]]["correct_gain"] for name in ("arithmetic-s", "arithmetic-m")]
        assert p["correct_seeds"] == pytest.approx(of) and p["correct_gain"] == pytest.approx(np.mean(of), abs=1e-6)
        assert p["correct_gain_low"] <= min(p["correct_gain"], *of)


def test_a_cached_seed_stands_in_without_its_seconds_and_is_told(seeded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = Sizes(**{**SMALL, "corrector": ("arithmetic-s,arithmetic-s-1",)}, cache=seeded, out=tmp_path / "again")
    out = run(config)
    rows, correctors = load_answers(out)
    before = {(r["corrector"], r["k"], r["problem"]): r for r in load_answers(seeded)[0]}
    assert [c["source"] for c in correctors] == ["run", "cache"]
    for row in rows:
        old = before[row["corrector"], row["k"], row["problem"]]
        assert row["outcomes"] == old["outcomes"] and row["corrector_tokens"] == old["corrector_tokens"]
        assert (row["seconds"] is None) == (row["corrector"] == "arithmetic-s-1")
    of = columns(rows, correctors)
    assert of["work"].shape == (3, 2, 3) and of["seconds"].shape == (3, 1, 3)
    assert "Of 1 seeds" in " ".join(figure.notes(figure.table(sizes_statistics(out))))
    report(out)
    assert "without seconds, as no checkpoint is here: arithmetic-s-1" in " ".join(capsys.readouterr().out.split())


def test_a_stand_in_goes_by_the_size_that_was_asked_for(seeded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    apart = {**SMALL, "corrector": ("arithmetic-s", "arithmetic-s-1")}
    rows, correctors = load_answers(run(Sizes(**apart, cache=seeded, out=tmp_path / "apart")))
    assert [c["size"] for c in correctors] == ["arithmetic-s", "arithmetic-s-1"]
    assert all(r["size"] == r["corrector"] for r in rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"corrector": ("arithmetic-s,arithmetic-s-2",)}, "no checkpoint of arithmetic-s-2, and no answers of it"),
        ({"rounds": 2}, "no checkpoint of arithmetic-s-1, and .* made with another rounds"),
        ({"corrector": ("arithmetic-s", "arithmetic-s")}, "names one twice"),
        ({"corrector": ("arithmetic-s-1",)}, "nothing can be measured"),
    ],
)
def test_seeds_that_are_nowhere_are_refused_before_anything_runs(seeded, tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    given = {**SMALL, "corrector": ("arithmetic-s,arithmetic-s-1",), **change}
    with pytest.raises(UserError, match=words):
        run(Sizes(**given, cache=seeded, out=tmp_path / "run"))


def test_correctors_of_different_size_are_no_seeds_of_one(finished, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(finished, folder)
    edited(folder, lambda row: row.update(size="arithmetic-s"))
    with pytest.raises(UserError, match="correctors of different size"):
        sizes_statistics(folder)


def test_retraining_trains_first_what_a_recipe_starts_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def train(config):
        made.append((config.recipe, config.init))
        config.out.mkdir(parents=True)
        (config.out / "card.json").write_text("{}")

    monkeypatch.setattr("corrector.train.run_resolved", train)
    assert trained("arithmetic-l-2", retrain=True) == "runs/train-arithmetic-l-2"
    assert made == [("arithmetic-base-2", ""), ("arithmetic-l-2", "runs/train-arithmetic-base-2")]
    trained("arithmetic-l-2", retrain=True)
    assert len(made) == 2, "what is finished is not trained again"


def test_a_run_of_before_is_told_so(finished, tmp_path):
    folder = tmp_path / "before"
    shutil.copytree(finished, folder)
    edited(folder, lambda row: row.pop("size"))
    with pytest.raises(UserError, match="written before sizes had training seeds"):
        sizes_statistics(folder)
