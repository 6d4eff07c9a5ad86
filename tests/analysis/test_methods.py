"""Methods against each other: numbers of a run made by hand, and the command itself at a small size."""

import json

import numpy as np
import pytest

from analysis.experiments.contests import Methods, run, stage_of
from analysis.experiments.systems import best_of, likelihoods, names, trained
from analysis.methods import load_contest, methods_statistics, report, scores
from corrector.errors import UserError

SMALL = {"task": "dialogue", "method": ("upstream", "stream", "aligner", "sft"), "seeds": (0,), "problems": 4}


def written(folder, values):
    """A finished run of one outcome: `values[method]` is a row a seed, a column a problem."""
    folder.mkdir(parents=True)
    rows, systems = [], []
    for method, by_seed in values.items():
        for seed, row in enumerate(by_seed):
            told = {"method": method, "seed": seed, "n_trained": 10, "source": "run", "model_organism": True}
            systems.append(told)
            rows += [
                {"method": method, "seed": seed, "problem": str(i), "outcomes": {"good": v}, "tokens": 5 + i}
                for i, v in enumerate(row)
            ]
    for name, of in (("answers", rows), ("systems", systems)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in of))
    (folder / "config.json").write_text(json.dumps({"task": "toy", "seed": 0}))
    (folder / "DONE").write_text("{}")
    return folder


def test_gains_are_over_the_same_problems_and_leads_of_the_same_seeds(tmp_path):
    values = {"upstream": [[0, 1, 0, 1]], "stream": [[1, 1, 1, 1], [1, 1, 0, 1]], "sft": [[0, 1, 1, 1], [0, 0, 0, 1]]}
    numbers = methods_statistics(written(tmp_path / "methods-toy", values))
    by = {(p["outcome"], p["method"]): p for p in numbers["points"]}
    assert by["good", "stream"]["gain"] == pytest.approx(3 / 8) and by["good", "sft"]["gain"] == pytest.approx(0.0)
    assert by["good", "sft"]["lead"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4 + 2 / 4) / 4)
    assert by["good", "stream"]["omega"] == pytest.approx(3 / 8)
    assert (by["good", "stream"]["seed_low"], by["good", "stream"]["seed_high"]) == (0.25, 0.5)
    assert by["tokens", "stream"]["gain"] == 0.0 and "omega" not in by["tokens", "stream"]
    keys = {f["key"] for f in numbers["findings"]}
    assert {"toy/methods/stream/good", "toy/methods/stream less sft/good", "toy/methods/sft/good omega"} <= keys


def test_leads_are_of_seeds_that_both_have_and_of_all_where_nothing_is_trained(tmp_path):
    values = {"upstream": [[0, 0]], "stream": [[1, 1], [0, 0]], "sft": [[0, 1]], "best-of-n": [[1, 0]]}
    folder = written(tmp_path / "methods-toy", values)
    rows = [json.loads(line) for line in (folder / "systems.jsonl").read_text().splitlines()]
    rows = [{**r, "n_trained": 0 if r["method"] in ("upstream", "best-of-n") else 10} for r in rows]
    (folder / "systems.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    by = {p["method"]: p for p in methods_statistics(folder)["points"] if p["outcome"] == "good"}
    assert by["sft"]["lead"] == pytest.approx(0.5), "seed 0 alone"
    assert by["best-of-n"]["lead"] == pytest.approx(0.0), "both seeds of stream less the one run"


def test_a_missing_answer_and_an_unfinished_run_are_refused(tmp_path):
    folder = written(tmp_path / "methods-toy", {"upstream": [[0, 1]], "stream": [[1, 1]]})
    rows, _ = load_contest(folder)
    with pytest.raises(UserError, match="lacks answers"):
        scores(rows[:-1], "good")
    (folder / "DONE").unlink()
    with pytest.raises(UserError, match="no finished run"):
        load_contest(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(Methods(**SMALL, out=tmp_path_factory.mktemp("runs") / "methods-dialogue"))


def test_shipped_methods_answer_the_same_problems_and_the_run_resumes_to_the_same_bytes(finished, tmp_path):
    rows, systems = load_contest(finished)
    assert [s["method"] for s in systems] == ["upstream", "stream", "aligner", "sft"]
    assert {s["source"] for s in systems} == {"run"} and systems[3]["n_parameters"] == systems[3]["n_trained"]
    assert systems[1]["n_parameters"] > systems[1]["n_trained"], "a corrector runs beside its upstream"
    assert all(of.shape == (1, 4) for of in scores(rows, "helpful").values())
    half = tmp_path / "methods-dialogue"
    half.mkdir()
    for name in ("config.json", "env.json"):
        (half / name).write_bytes((finished / name).read_bytes())
    lines = (finished / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (half / "answers.jsonl").write_bytes(b"".join(lines[:6]))  # killed within the second method
    (half / "systems.jsonl").write_bytes((finished / "systems.jsonl").read_bytes().splitlines(keepends=True)[0])
    run(Methods(**SMALL, out=half))
    assert (half / "answers.jsonl").read_bytes() == b"".join(lines)


def test_the_upstream_of_a_method_that_writes_is_the_method_itself(finished):
    rows, _ = load_contest(finished)
    of = {name: [r["answer"] for r in rows if r["method"] == name] for name in ("upstream", "sft")}
    assert of["upstream"] != of["sft"]


def test_cached_answers_stand_in_for_models_that_are_not_here_and_are_told(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("analysis.experiments.systems.references", lambda: ["dialogue-0"])
    monkeypatch.chdir(tmp_path)
    out = run(Methods(**SMALL, cache=finished, out=tmp_path / "again"))
    systems = {s["method"]: s["source"] for s in load_contest(out)[1]}
    assert systems == {"upstream": "run", "stream": "run", "aligner": "cache", "sft": "cache"}
    assert (out / "answers.jsonl").read_bytes() == (finished / "answers.jsonl").read_bytes()
    report(out)
    assert "no checkpoint is here: aligner 0, sft 0" in " ".join(capsys.readouterr().out.split())


def test_partial_leaves_out_what_is_nowhere(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.experiments.systems.references", lambda: [])
    monkeypatch.chdir(tmp_path)
    given = {**SMALL, "method": ("upstream", "sft", "dpo"), "seeds": (0, 1)}
    out = run(Methods(**given, partial=True, cache=finished, out=tmp_path / "part"))
    assert [(s["method"], s["seed"]) for s in load_contest(out)[1]] == [("upstream", 0), ("sft", 0)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cache": "nowhere"}, "no checkpoint of aligner 0, sft 0, and no finished run"),
        ({"seeds": (0, 1), "method": ("upstream", "sft")}, "no checkpoint of sft 1, and no answers of it"),
        ({"max_rounds": 5}, "made with another max_rounds"),
        ({"problems": 5}, "made with another problems"),
        ({"checkpoint": ("aligner-0",)}, "is not METHOD-SEED=REF"),
        ({"method": ("stream",)}, "the method upstream"),
    ],
)
def test_mistakes_are_told_before_anything_runs(finished, tmp_path, monkeypatch, change, words):
    monkeypatch.setattr("analysis.experiments.systems.references", lambda: ["dialogue-0"])
    monkeypatch.chdir(tmp_path)
    given = {**SMALL, "cache": finished, **change}
    given["cache"] = tmp_path / given["cache"]
    with pytest.raises(UserError, match=words):
        run(Methods(**given, out=tmp_path / "run"))


def test_checkpoints_are_named_as_their_recipes():
    assert names("proxy", "dialogue", 1) == ("dialogue-expert-1", "dialogue-antiexpert-1")
    assert names("stream", "arithmetic", 0) == ("arithmetic-s",) and names("upstream", "dialogue", 0) == ()
    assert names("aligner", "arithmetic", 2) == ("arithmetic-aligner-s-2",)
    assert trained("dialogue-0", retrain=False) == "dialogue-0"
    assert trained("dialogue-nobody-7", retrain=False) is None


def test_best_of_n_takes_the_likeliest_and_needs_chance():
    config = Methods(**SMALL)
    stage = stage_of(config, [])
    problems = stage.task.problems("test", 3)
    best = best_of(stage, problems, 3, 0.7)
    single = best_of(stage, problems, 2, 0.7)  # the first two of the same three draws
    at = [np.array(likelihoods(stage.upstream.lm, answers, 8)) for answers in (best, single)]
    assert (at[0] >= at[1] - 1e-5).all() and len(best) == 3
    with pytest.raises(UserError, match="one answer to choose from"):
        best_of(stage, problems, 3, 0.0)
