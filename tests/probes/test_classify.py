import dataclasses
import inspect
import json
import re
import shutil
import sys

import pandas as pd
import pytest
from rich.console import Console

from corrector.decoding import Output
from corrector.errors import UserError, run_cli
from corrector.tasks.dialogue import grammar, lexicon
from probes import contrasts
from probes.classify import Classify, chosen, main, run, show

FILES = ("config.json", "items.jsonl", "probes.jsonl", "transfer.jsonl", "summary.json", "summary.csv", "DONE")


def save(lm, folder):
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    card = {"template": "lab", "role": "corrector", "recipe": {"task": "dialogue"}, "model_organism": True}
    (folder / "card.json").write_text(json.dumps(card))
    return str(folder)


@pytest.fixture(scope="module")
def models(make_lm, tmp_path_factory):
    """Two random correctors of two layers that know the words of task dialogue."""
    words = sorted(set(re.findall(r"[A-Za-z]+", inspect.getsource(grammar) + inspect.getsource(lexicon))))
    texts = [piece for word in words for w in (word, word.capitalize()) for piece in (w, f" {w}")]
    base = tmp_path_factory.mktemp("models")
    lms = [make_lm("llama", texts=texts, n_layers=2, seed=seed) for seed in (0, 1)]
    return [save(lm, base / f"seed-{i}") for i, lm in enumerate(lms)]


@pytest.fixture(scope="module", autouse=True)
def corrections():
    """Corrections without decoding: a corrector that rewrites every sentence with an odd number of tokens."""

    def decode(lm, prompts, **_):
        out = []
        for prompt in prompts:
            start, end = prompt.spans["last"]
            ids = prompt.ids[start:end]
            out.append(Output(tuple(ids[:-1] if len(ids) % 2 else ids), True))
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrasts, "decode", decode)
        yield


@pytest.fixture(scope="module")
def config(models):
    return Classify(
        corrector=models[0],
        before=models[1],
        upstream=models[1],
        transfer=(models[1],),
        transfer_task=("arithmetic",),
        label=("is_wrong", "looks_wrong"),
        classifier=("mass_mean", "logistic"),
        layers=(1,),
        span=("last",),
        train=20,
        validation=8,
        test=12,
        resamples=20,
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    return run(dataclasses.replace(config, out=tmp_path_factory.mktemp("run") / "a"))


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_rows_are_every_label_source_place_and_classifier_once(finished):
    got = rows(finished, "probes")
    keys = [tuple(r[k] for k in ("label", "source", "span", "layer", "classifier")) for r in got]
    assert len(set(keys)) == len(keys)
    labels = ("is_wrong", "looks_wrong")
    models = [
        ("corrector", "mass_mean"),
        ("corrector", "logistic"),
        ("untrained", "mass_mean"),
        ("before", "mass_mean"),
    ]
    expected = [
        (label, source, span, layer, name)
        for label in labels
        for source, name in models
        for span in ("last",)
        for layer in (0, 1)
    ]
    assert [k for k in keys if k[2] is not None] == expected
    surface = ["prior", "length", "position", "perplexity_corrector", "perplexity_upstream", "bag_of_words"]
    assert [k[1] for k in keys if k[2] is None and k[0] == "is_wrong"] == surface
    for r in got:
        assert r["n"] == 24 and r["n_problems"] == 12 and 0 <= r["low"] <= r["high"] <= 1
        assert r["selectivity"] == pytest.approx(r["accuracy"] - r["control_accuracy"], abs=1e-5)
    assert {r["auroc"] for r in got if r["source"] == "prior"} == {0.5}


def test_the_summary_crosses_the_labels_and_names_what_is_absent(finished):
    summary = json.loads((finished / "summary.json").read_text())
    items = rows(finished, "items")
    assert summary["items"]["train"] == {"items": 40, "problems": 20} and summary["model_organism"] is True
    test = [i for i in items if i["part"] == "test"]
    assert sum(c["n"] for c in summary["cross_table"]["test"]["cells"]) == len(test) == 24
    for item in test:
        assert item["was_edited"] == (len(re.findall(r" ?[A-Za-z]+|\S", item["last"])) % 2 == 1)
    missed = summary["cross_table"]["test"]["missed_rewrite"]
    assert missed["n"] == sum(i["is_wrong"] and not i["was_edited"] for i in test)
    assert any("no transfer to task arithmetic" in n and "vocabulary" in n for n in summary["notes"])
    assert not any("question" in i and i["question"] in {t["question"] for t in test} for i in items[:40])


def test_transfer_is_a_matrix_with_its_diagonal(finished, models):
    got = rows(finished, "transfer")
    a, b = models
    pairs = {(r["source"], r["target"], r["alignment"]) for r in got}
    crossed = {(s, t, w) for s, t in ((a, b), (b, a)) for w in ("raw", "aligned", "shuffled")}
    assert pairs == {(a, a, "none"), (b, b, "none")} | crossed
    own = {(r["label"], r["span"], r["layer"]): r["auroc"] for r in got if r["source"] == r["target"] == a}
    for r in rows(finished, "probes"):
        if r["source"] == "corrector" and r["classifier"] == "mass_mean":
            assert own[r["label"], r["span"], r["layer"]] == r["auroc"]


def test_layers_are_chosen_by_validation_and_csv_and_print_say_so(finished):
    table = chosen(finished)
    every = pd.DataFrame(rows(finished, "probes"), dtype=object)
    for _, row in table[table["source"] == "corrector"].iterrows():
        same = every[
            (every[["label", "source", "span", "classifier"]] == row[["label", "source", "span", "classifier"]]).all(
                axis=1
            )
        ]
        assert len(same) == 2 and row["auroc_validation"] == same["auroc_validation"].max()
    assert set(table.loc[table["source"] == "layer_0", "layer"]) == {0}
    assert len(pd.read_csv(finished / "summary.csv")) == len(table)
    console = Console(record=True, width=60)
    show(finished, console)
    text = console.export_text()
    first = table.iloc[0]
    assert f"{first['auroc']:.2f} [{first['low']:.2f}, {first['high']:.2f}]" in text
    for part in (
        "model organism",
        "bag_of_words",
        "layer_0",
        "missed rewrite",
        "transfer across correctors",
        "no transfer",
    ):
        assert part in text
    with pytest.raises(UserError, match=r"no summary\.json"):
        show(finished / "nothing")


def test_a_killed_run_resumes_to_the_bytes_of_one_that_was_not(config, finished, tmp_path):
    """Only one of the rows is kept, so this is a second clean run as well."""
    again = tmp_path / "b"
    shutil.copytree(finished, again)
    for name in ("DONE", "summary.json", "summary.csv", "transfer.jsonl"):
        (again / name).unlink()
    for name, rows_kept in (("probes", 1), ("items", 7)):
        file = again / f"{name}.jsonl"
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:rows_kept]) + lines[rows_kept][:40])
    run(dataclasses.replace(config, out=again))
    for name in FILES:
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_resumed_run_does_not_decode_again(config, finished, tmp_path, monkeypatch):
    again = tmp_path / "b"
    shutil.copytree(finished, again)
    for name in ("DONE", "summary.json"):
        (again / name).unlink()
    fake = contrasts.decode

    def decode(lm, prompts, **_):
        assert lm.ref != config.corrector
        return fake(lm, prompts)

    monkeypatch.setattr(contrasts, "decode", decode)
    run(dataclasses.replace(config, out=again))
    assert (again / "summary.json").read_bytes() == (finished / "summary.json").read_bytes()


def test_a_finished_run_is_found_and_not_touched(config, finished):
    times = {f.name: f.stat().st_mtime_ns for f in finished.iterdir() if f.name != ".lock"}
    assert run(dataclasses.replace(config, out=finished)) == finished
    assert times == {f.name: f.stat().st_mtime_ns for f in finished.iterdir() if f.name != ".lock"}
    with pytest.raises(UserError, match=r"holds another run.*seed"):
        run(dataclasses.replace(config, out=finished, seed=5))


def test_a_constant_label_and_a_failed_fit_are_absent_and_named(config, tmp_path, monkeypatch, capsys):
    def copies(lm, prompts, **_):
        return [Output(tuple(p.ids[slice(*p.spans["last"])]), True) for p in prompts]

    monkeypatch.setattr(contrasts, "decode", copies)
    small = dataclasses.replace(
        config, label=("was_edited", "is_wrong"), transfer=(), transfer_task=(), span=("prompt_last",), layers=(0,)
    )
    # at layer 0 of resid_pre the last prompt token is the same for all: no mean difference
    out = run(dataclasses.replace(small, site="resid_pre", classifier=("mass_mean",), out=tmp_path / "c"))
    got, summary = rows(out, "probes"), json.loads((out / "summary.json").read_text())
    assert {r["label"] for r in got} == {"is_wrong"} and {r["span"] for r in got} == {None}
    assert summary["n_absent_labels"] == 1 and summary["n_absent_rows"] == 3
    reasons = [f"{a['label']}: {a['reason']}" for a in summary["absent"]]
    assert reasons[0].startswith("was_edited: 0 of 40 train items are positive")
    assert sum("same mean" in r for r in reasons) == 3
    assert not (out / "transfer.jsonl").exists()
    show(out)
    printed = capsys.readouterr().out
    assert "absent: was_edited: 0 of 40" in printed and "AUROC" in printed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--corrector no/such/model/here", "cannot be a hub id"),
        ("--layers 0 2", "layer=2 not in 0..1; choose --layers in that range"),
        ("--span outptu", "span='outptu' not among"),
        ("--span output", "output spans need a teacher-forced target"),
        ("--classifier svm", "classifier='svm' is not one of"),
        ("--task riddles", "task='riddles' is not one of"),
        ("--resamples 3", "resamples=3 is below 10"),
        ("--span last last", "names one twice"),
        ("--before no/such/model/here", "cannot be a hub id"),
        ("--transfer-task dialogue", "leave the probed one out"),
    ],
)
def test_a_users_mistake_is_one_line_exit_code_2_and_no_folder(models, tmp_path, monkeypatch, capsys, flags, said):
    size = "--train 10 --validation 5 --test 5".split()
    words = ["classify", "--corrector", models[0], *size, *flags.split(), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        run_cli(Classify, main, "probes.classify")
    error = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and said in error[-1] and not (tmp_path / "run").exists()
