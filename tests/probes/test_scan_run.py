"""A planted corrector: from block 2 on, a direction at the last prompt token says how much it is about to rewrite."""

import dataclasses
import json
import random
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import figures.scan
from corrector import tasks
from corrector.decoding import Output
from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel
from corrector.tasks.base import Example, Pair, Problem, Step
from figures.drawn import Draw
from figures.drawn import main as draw
from probes import contrasts, scan
from probes.scan import Scan, run
from probes.scanning import measure as module
from probes.scanning.measure import measure
from tests.toy_task import ToyTask

FIRST, SIZES = 2, {"train": (0, 40), "validation": (40, 60), "test": (60, 90)}
NOUNS = ("apples", "pens", "coins", "bags")


class Pens(ToyTask):
    """Every problem has two suffixes of random words; a coin says which one is copied, so words say nothing."""

    name = "dialogue"
    outcomes = ("right",)
    max_sentence_tokens = 12

    def problems(self, split, n, seed=0):
        first, end = SIZES[split]
        if n > end - first:
            raise UserError(f"n={n} but there are {end - first} problems of split {split!r}; ask for fewer")
        return [Problem(f"p{i}", f"Tom has {i} {NOUNS[i % 4]}") for i in range(first, first + n)]

    def size(self, split):
        return SIZES[split][1] - SIZES[split][0]

    def example(self, problem, rng):
        rng = random.Random(problem.id)
        copied, rewritten = (f"he {rng.choice(('buys', 'finds'))} {rng.randrange(100)} pens" for _ in range(2))
        # Rewrites grow with the problem's number, so edit ratios do; copies of even problems are short.
        longer = "so she gets" + " more" * (1 + int(problem.id[1:]) % 5)
        pairs = [
            Pair(problem.id, problem.question, "", copied, copied),
            Pair(problem.id, problem.question, "", rewritten, longer),
        ]
        return Example(problem, (Step("", tuple(pairs), copied),))


def table():
    """`last` and question to the correction of every pair."""
    pairs = []
    for split in SIZES:
        for problem in Pens().problems(split, Pens().size(split)):
            pairs += Pens().example(problem, random.Random(0)).steps[0].branches
    return pairs


def plant(lm: LanguageModel, layer=FIRST, size=40.0) -> LanguageModel:
    """Hooks that add, from `layer` on, an axis at the last prompt token, as long as the rewrite is."""
    amounts = {
        lm.encode(p.question, p.prefix, p.last).ids: 1 + p.correction.count("more")
        for p in table()
        if p.last != p.correction
    }
    axis = torch.randn(32, generator=torch.Generator().manual_seed(1))
    seen = []

    def read(_, args):
        seen[:] = args[0].tolist()

    def write(_, args, h):
        h = h.clone()
        for i, ids in enumerate(seen):
            for prompt, amount in amounts.items():
                if tuple(ids[: len(prompt)]) == prompt:
                    h[i, len(prompt) - 1] += size * amount * axis / axis.norm()
        return h

    lm.model.get_input_embeddings().register_forward_pre_hook(read)
    lm.model.model.layers[layer].register_forward_hook(write)
    return lm


@pytest.fixture(scope="module")
def planted(make_lm):
    return plant(make_lm("llama"))


def by_table(lm, prompts, **_):
    """What the corrector writes is the table's, not the random model's."""
    written = {lm.encode(p.question, p.prefix, p.last).ids: p.correction for p in table()}
    return [Output(tuple(lm.encode_target(written[prompt.ids])[:-1]), True) for prompt in prompts]


@dataclasses.dataclass
class Stage:
    """What is patched for a run: `loaded` names the models that were loaded, `drawn` the figures asked for."""

    loaded: list
    drawn: list


def set_up(patch, planted):
    stage = Stage([], [])

    def load(ref, *_):
        stage.loaded.append(ref)
        return dataclasses.replace(planted, ref=ref)

    patch.setattr(contrasts, "decode", by_table)
    patch.setattr(scan, "load", load)
    patch.setattr(scan, "tasks", SimpleNamespace(get=lambda name, data="": Pens()))
    patch.setattr(scan, "subprocess", SimpleNamespace(run=lambda command, check: stage.drawn.append(command)))
    return stage


@pytest.fixture
def stage(monkeypatch, planted):
    return set_up(monkeypatch, planted)


CONFIG = Scan(corrector=("one",), tokens=6, pairs=40, items=30, neutral=20, shuffles=100, resamples=100, examples=1)
TWO = dataclasses.replace(CONFIG, corrector=("one", "two"))


@pytest.fixture(scope="module")
def measured(planted):
    with pytest.MonkeyPatch.context() as patch:
        set_up(patch, planted)
        return measure(CONFIG, Pens(), planted)


@pytest.fixture(scope="module")
def two(planted, tmp_path_factory):
    """A finished run of two correctors, not drawn, and its bytes."""
    out = tmp_path_factory.mktemp("runs") / "two"
    with pytest.MonkeyPatch.context() as patch:
        stage = set_up(patch, planted)
        run(dataclasses.replace(TWO, out=out))
    assert stage.drawn == [[sys.executable, "-m", "figures.scan", str(out)]] and stage.loaded == ["one", "two"]
    return out, contents(out)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def curves(measured):
    return {(r["reader"], r["span"]): r for r in measured.onset}


def test_the_decision_is_read_from_the_layer_where_it_was_planted(measured):
    found = curves(measured)["direction", "prompt_last"]
    assert found["onset"] == found["saturation"] == FIRST and found["value"][FIRST] == 1.0
    assert max(found["value"][:FIRST]) <= found["null_high"]
    assert (found["n_items"], found["n_problems"], found["statistic"]) == (30, 30, "auroc")


def test_lat_finds_it_too(planted, monkeypatch):
    set_up(monkeypatch, planted)
    found = measure(dataclasses.replace(CONFIG, method="lat", tokens=1), Pens(), planted)
    assert curves(found)["direction", "prompt_last"]["onset"] == FIRST and set(found.about["cosine"]) == {"diff_means"}
    assert found.about["cosine"]["diff_means"][FIRST] > 0.9


def test_extent_is_read_from_there_on_too(measured):
    found = curves(measured)["extent", "prompt_last"]
    assert found["onset"] == FIRST and found["value"][FIRST] > 0.8 and max(map(abs, found["value"][:FIRST])) < 0.45


def test_first_tokens_of_rewrites_are_told_from_a_copys(measured):
    found = curves(measured)["written", "prompt_last"]
    assert found["differs"] == 1.0 and found["n_items"] == 60 and found["null_high"] is None  # "so" against "he"


def test_scan_cells_light_up_at_the_planted_layer_and_token_only_for_corrections(measured):
    cell = {(r["kind"], r["variant"], r["layer"], r["token"]): r for r in measured.scan}
    for layer in range(4):
        copy, correction = (cell[kind, "z", layer, 0] for kind in ("copy", "correction"))
        if layer >= FIRST:
            assert correction["low"] > copy["high"] + 3
        else:
            assert abs(correction["mean"] - copy["mean"]) < 1.5
    assert max(abs(r["mean"]) for r in measured.scan if r["variant"] == "published") <= CONFIG.bound
    assert all(r["n"] >= 5 and r["low"] <= r["mean"] <= r["high"] for r in measured.scan)


def test_columns_thin_out_with_the_lengths_of_the_outputs(measured):
    n = {(r["kind"], r["token"]): r["n"] for r in measured.scan if r["layer"] == 0 and r["variant"] == "z"}
    test = [p for p in table() if int(p.problem[1:]) >= 60]
    for kind, pairs in (("copy", [p for p in test if p.last == p.correction]), ("correction", test[1::2])):
        lengths = [p.correction.count(" ") + 1 for p in pairs]
        if kind == "correction":  # one token a word
            expected = {t: sum(m >= t for m in lengths) for t in range(7)}
            assert {t: n["correction", t] for t in range(7) if expected[t] >= 5} == {
                t: m for t, m in expected.items() if m >= 5
            }
        assert n[kind, 0] == len(pairs) == 30
    assert n["correction", 6] < n["correction", 1]


def test_about_says_what_was_measured_on_what(measured, planted):
    about = measured.about
    assert (about["n_train"], about["n_test"], about["n_copy"], about["n_correction"]) == (40, 30, 30, 30)
    assert about["n_layers"] == 4 and about["fingerprint"] == planted.fingerprint and about["absent_curves"] == []
    assert len(about["cosine"]["lat"]) == len(about["norm"]) == 4 and about["neutral"]["n"] > 20
    assert [r["span"] for r in measured.onset if r["reader"] == "output"] == [f"output[{k}:{k + 1}]" for k in range(4)]


def test_examples_hold_the_tokens_and_a_score_for_each(measured, planted):
    assert [r["kind"] for r in measured.items] == ["copy", "correction"]
    for row in measured.items:
        assert np.shape(row["z"]) == (4, len(row["tokens"])) and row["tokens"][0] == "<y2>"
        assert "".join(row["tokens"][1:]) == planted.decode(planted.encode_target(row["correction"])[:6])
        assert (row["edit_ratio"] == 0) == (row["kind"] == "copy")


def test_the_run_folder_holds_rows_of_every_corrector(two):
    _, whole = two
    names = {"config.json", "env.json", "scan.jsonl", "items.jsonl", "onset.jsonl", "DONE", ".lock"}
    assert set(whole) == names | {"corrector-0.json", "corrector-1.json"}
    rows = [json.loads(line) for line in whole["scan.jsonl"].splitlines()]
    assert {r["corrector"] for r in rows} == {"one", "two"}
    keys = {"task", "corrector", "kind", "layer", "token", "mean", "low", "high", "n", "variant"}
    assert all(keys <= r.keys() for r in rows)


def test_a_finished_run_loads_nothing_and_a_second_one_has_the_same_bytes(two, stage, tmp_path):
    out, whole = two
    shutil.copytree(out, tmp_path / "finished")
    run(dataclasses.replace(TWO, out=tmp_path / "finished"))
    assert contents(tmp_path / "finished") == whole and stage.loaded == []
    again = contents(run(dataclasses.replace(TWO, out=tmp_path / "again")))
    assert {k: v for k, v in again.items() if k != "config.json"} == {
        k: v for k, v in whole.items() if k != "config.json"
    }


def test_a_run_cut_inside_the_second_corrector_does_not_redo_the_first(two, stage, tmp_path):
    out, whole = two
    cut = tmp_path / "cut"
    shutil.copytree(out, cut)
    for name in ("DONE", "corrector-1.json"):
        (cut / name).unlink()
    first = [line for line in whole["onset.jsonl"].splitlines(keepends=True) if b'"one"' in line]
    (cut / "onset.jsonl").write_bytes(b"".join(first))
    lines = whole["scan.jsonl"].splitlines(keepends=True)
    (cut / "scan.jsonl").write_bytes(b"".join(lines[:-7]) + lines[-7][:30])
    run(dataclasses.replace(TWO, out=cut))
    assert stage.loaded == ["two"]
    for name in ("scan.jsonl", "items.jsonl", "onset.jsonl", "corrector-1.json", "DONE"):
        assert (cut / name).read_bytes() == whole[name], name


def test_another_configuration_does_not_touch_a_run(two, stage, tmp_path):
    out, whole = two
    shutil.copytree(out, tmp_path / "other")
    with pytest.raises(UserError, match="holds another run: tokens"):
        run(dataclasses.replace(TWO, tokens=5, out=tmp_path / "other"))
    assert contents(tmp_path / "other") == whole


def test_tables_and_figure_are_drawn_from_the_run(two, tmp_path, capsys):
    out, _ = two
    shutil.copytree(out, tmp_path / "drawn")
    draw(Draw(tmp_path / "drawn"), figures.scan.reported, "figure")
    said = capsys.readouterr().out
    assert "figure.png" in said and "copy/rewrite" in said
    assert (tmp_path / "drawn" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "drawn" / "summary.json").read_text())["finished"] is True


def test_a_corrector_that_only_copies_is_named(stage, monkeypatch, tmp_path):
    monkeypatch.setattr(
        module, "as_corrected", lambda lm, task, pairs: [dataclasses.replace(p, correction=p.last) for p in pairs]
    )
    with pytest.raises(UserError, match="no matched pair"):
        run(dataclasses.replace(CONFIG, out=tmp_path / "run"))
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.fixture
def command(monkeypatch, capsys):
    def call(arguments):
        monkeypatch.setattr(sys, "argv", ["scan", *arguments.split()])
        with pytest.raises(SystemExit) as stop:
            run_cli(Scan, run, "probes.scan")
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        return stop.value.code, [line for line in lines if line.strip() and "%|" not in line]

    return call


MISTAKES = {
    "unknown task": ("--task poetry", "task='poetry' is not one of dialogue"),
    "no token": ("--tokens 0", "tokens=0 is below 1"),
    "few shuffles": ("--shuffles 20", "shuffles=20 is below 100"),
    "few items": ("--items 2", "items=2 is below 5"),
    "bound": ("--bound -1", "bound=-1.0 is no positive number"),
    "bound that is no number": ("--bound nan", "is no positive number"),
    "corrector twice": ("--corrector a a", "names one twice"),
    "no reference": ("--task jsonl --data nowhere.jsonl", "has no reference corrector"),
    "corrector that is nowhere": ("--corrector ./nowhere --pairs 5 --items 5 --neutral 2", "is no folder here"),
    "span unknown": ("--corrector dialogue-0 --span outptu --pairs 5 --items 5 --neutral 2", "span='outptu' not among"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_users_mistake_is_one_line_exit_code_2_and_no_run_folder(command, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[name]
    code, said = command(arguments)
    assert code == 2 and len(said) == 1, said
    assert said[0].startswith("probes.scan: ") and expected in said[0]
    assert not list(tmp_path.iterdir())


def test_a_flag_that_does_not_parse_exits_with_2(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = command("--tokens many")
    assert code == 2 and said and not list(tmp_path.iterdir())


def test_the_default_corrector_is_the_tasks_reference():
    assert Scan().corrector == () and Scan().task in tasks.NAMES and Scan().span == "prompt_last"
