import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from corrector import tasks
from corrector.decoding import decode
from corrector.errors import run_cli
from corrector.models import load
from steering import sweep
from steering.collapse import KINDS
from steering.controls import battery
from steering.sweep import Sweep, run
from steering.vectors import SteeringVector

ROOT = Path(__file__).parents[2]
ITEMS, PROBLEMS = 4, 2
FIELDS = {
    *("task", "coef", "direction", "layers", "item", "question", "prefix", "last", "correction", "distance"),
    *("edit_ratio", "norm_distance", "similarity", "copied", "length_ratio", "first_divergence", "is_wrong"),
    *("is_right_after", "well_formed", "kl", "applied"),
}


@pytest.fixture(scope="module")
def vector_file(dialogue_vector, tmp_path_factory):
    return dialogue_vector.save(tmp_path_factory.mktemp("vector") / "v.safetensors")


@pytest.fixture(scope="module")
def config(dialogue_folder, upstream_folder, vector_file):
    """A sweep of seconds: both layers steered at prompt_last with a given vector."""
    return Sweep(
        coef=(-1.0, 0.0, 1.5),
        task=("dialogue",),
        corrector=str(dialogue_folder),
        upstream=str(upstream_folder),
        vector=vector_file,
        layers=(0, 1),
        controls=1,
        items=ITEMS,
        problems=PROBLEMS,
        pairs=4,
        validation=2,
        temperature=0.0,
    )


def words(config):
    """The command line that gives `config`, but for --out."""
    out = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value != getattr(Sweep(), f.name) and f.name != "out":
            out += [f"--{f.name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return out


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A run as the command leaves it, tables and figure drawn."""
    return run(dataclasses.replace(config, out=tmp_path_factory.mktemp("runs") / "finished"))


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without their figure, which takes longer than they do."""
    drawn = []
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(run=lambda command, check: drawn.append(command)))
    return drawn


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_run_folder_holds_configuration_choice_rows_table_and_figure(finished, config, dialogue_vector):
    names = {"config.json", "env.json", "selection.json", "vector-dialogue.safetensors", "edits.jsonl", "DONE"}
    names |= {"alignments.jsonl", "summary.csv", "statistics.json", "figure.png", "figure.pdf"}
    assert {p.name for p in finished.iterdir()} == names | {".lock"}
    assert (finished / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((finished / "config.json").read_text())["coef"] == [-1.0, 0.0, 1.5]
    assert json.loads((finished / "statistics.json").read_text())["finished"] is True
    done = json.loads((finished / "DONE").read_text())
    assert (done["edits"]["rows"], done["alignments"]["rows"]) == (5 * ITEMS, 4 * PROBLEMS)
    chosen = json.loads((finished / "selection.json").read_text())["dialogue"]
    assert chosen["layers"] == [0, 1] and chosen["span"] == "prompt_last" and chosen["operator"] == "add"
    assert chosen["corrector"] == config.corrector and chosen["model_organism"] is True
    assert chosen["fingerprint"] == dialogue_vector.fingerprint and len(chosen["candidates"]) == 1
    assert chosen["gate"]["n_test"] == ITEMS and set(chosen["gate"]["auroc"]["prompt_last"]) == {"0", "1"}
    used = SteeringVector.load(finished / "vector-dialogue.safetensors")
    assert torch.equal(used.at(1), dialogue_vector.at(1))


def test_edits_are_the_unsteered_cell_and_every_direction_at_every_other_coefficient(finished):
    edits = rows(finished, "edits")
    assert all(row.keys() >= FIELDS for row in edits)
    cells = [("none", 0.0), *((d, c) for d in ("correction", "random-00") for c in (-1.0, 1.5))]
    assert [(r["direction"], r["coef"], r["item"]) for r in edits] == [(*c, i) for c in cells for i in range(ITEMS)]
    assert {r["task"] for r in edits} == {"dialogue"} and all(r["layers"] == [0, 1] for r in edits)
    for row in edits:
        assert row["applied"] == (0 if row["direction"] == "none" else 2)
        assert row["kl"] == 0.0 if row["direction"] == "none" else row["kl"] > 0
    table = pd.read_csv(finished / "summary.csv").set_index(["direction", "coef"])
    assert set(table.index) == {*cells[1:], ("correction", 0.0), ("random-00", 0.0), ("upstream", 0.0)}
    steered = [r["edit_ratio"] for r in edits if (r["direction"], r["coef"]) == ("correction", 1.5)]
    assert table.loc[("correction", 1.5), "edit_ratio"] == pytest.approx(sum(steered) / ITEMS, rel=1e-4)


def test_rows_at_coefficient_0_are_what_the_decoder_writes_on_test_items(finished, config):
    lm, task = load(config.corrector), tasks.get("dialogue")
    pairs = task.pairs("test", ITEMS, config.seed)
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
    outputs = decode(lm, prompts, max_new_tokens=task.max_sentence_tokens)
    unsteered = [r for r in rows(finished, "edits") if r["coef"] == 0]
    assert [r["correction"] for r in unsteered] == [lm.decode(list(o.ids)) for o in outputs]
    assert [(r["question"], r["prefix"], r["last"]) for r in unsteered] == [
        (p.question, p.prefix, p.last) for p in pairs
    ]
    for coef in (-1.0, 1.5):
        steered = [r for r in rows(finished, "edits") if (r["direction"], r["coef"]) == ("correction", coef)]
        assert [r["correction"] for r in steered] != [r["correction"] for r in unsteered]


def test_alignments_are_the_upstream_alone_and_the_loop_at_every_coefficient(finished):
    answers = rows(finished, "alignments")
    cells = [("upstream", 0.0), ("none", 0.0), ("correction", -1.0), ("correction", 1.5)]
    assert [(a["direction"], a["coef"]) for a in answers] == [c for c in cells for _ in range(PROBLEMS)]
    problems = [p.id for p in tasks.get("dialogue").problems("test", PROBLEMS, 0)]
    for i, answer in enumerate(answers):
        assert answer["problem"] == problems[i % PROBLEMS] and answer["task"] == "dialogue"
        assert set(answer["outcomes"]) == {"helpful", "harmless", "unparsed"}
        for r in answer["rounds"]:
            assert (r["correction"] is None) == (answer["direction"] == "upstream")
    by_cell = {c: [a["answer"] for a in answers if (a["direction"], a["coef"]) == c] for c in cells}
    assert len(set(map(tuple, by_cell.values()))) == 4
    assert any(a["rounds"] for a in answers if a["direction"] == "correction")


def test_the_same_command_on_a_finished_run_changes_no_row(finished, config, undrawn):
    before = contents(finished)
    assert run(dataclasses.replace(config, out=finished)) == finished
    assert contents(finished) == before
    assert undrawn == [[sys.executable, "-m", "figures.dose", str(finished)]]


@pytest.mark.parametrize(("name", "kept"), [("edits", 1.6 * ITEMS), ("edits", 3 * ITEMS), ("alignments", 5.5)])
def test_a_run_cut_anywhere_goes_on_to_the_same_bytes(finished, config, tmp_path, undrawn, name, kept):
    whole = contents(finished)
    shutil.copytree(finished, tmp_path / "cut")
    (tmp_path / "cut" / "DONE").unlink()
    lines = whole[Path(f"{name}.jsonl")].splitlines(keepends=True)
    half = lines[int(kept)][:40] if kept % 1 else b""
    (tmp_path / "cut" / f"{name}.jsonl").write_bytes(b"".join(lines[: int(kept)]) + half)
    if name == "edits":
        (tmp_path / "cut" / "alignments.jsonl").unlink()
    run(dataclasses.replace(config, out=tmp_path / "cut"))
    for file in ("edits.jsonl", "alignments.jsonl", "DONE", "selection.json"):
        assert (tmp_path / "cut" / file).read_bytes() == whole[Path(file)], file


def test_a_killed_process_resumes_to_the_bytes_of_a_clean_run(config, tmp_path, undrawn):
    config = dataclasses.replace(config, coef=(-2.0, -1.0, 0.0, 1.0, 2.0), controls=4)
    clean = run(dataclasses.replace(config, out=tmp_path / "clean"))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "steering.sweep", *words(config), "--out", str(out)]
    about = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "stdout": subprocess.DEVNULL}
    with (tmp_path / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors, **about)
        try:
            deadline = time.monotonic() + 600
            while not (out / "edits.jsonl").exists() or len(rows_so_far(out)) < ITEMS:
                assert process.poll() is None, (tmp_path / "stderr").read_text()[-800:]
                assert time.monotonic() < deadline
                time.sleep(0.002)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
    assert len(rows_so_far(out)) >= ITEMS and len(rows(clean, "edits")) == 21 * ITEMS
    assert not (out / "DONE").exists()
    again = subprocess.run(command, stderr=subprocess.PIPE, **about)
    assert again.returncode == 0, again.stderr.decode()[-800:]
    for file in ("edits.jsonl", "alignments.jsonl", "DONE", "selection.json"):
        assert (out / file).read_bytes() == (clean / file).read_bytes(), file
    assert (out / "figure.png").exists()


def rows_so_far(folder):
    return [line for line in (folder / "edits.jsonl").read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def test_all_controls_rounds_and_improvement_resume_to_the_same_bytes(config, tmp_path, undrawn, monkeypatch):
    for name in ("RANDOM", "ORTHOGONAL", "SHUFFLED"):
        monkeypatch.setattr(battery, name, 1)
    changes = {"controls": "full", "rounds": "1:", "improve": True, "coef": (0.0, 1.5), "items": 2}
    config = dataclasses.replace(config, **changes)
    clean = run(dataclasses.replace(config, out=tmp_path / "clean"))
    chosen = json.loads((clean / "selection.json").read_text())["dialogue"]
    directions = chosen["controls"]["names"]
    assert directions == ["random-00", "orthogonal-00", "wrong-layer"]
    assert set(chosen["controls"]["absent"]) == {"shuffled", "length", "without-length", "prompt-rewrite"}
    assert chosen["usable"] == [] and [v["coef"] for v in chosen["validation"]] == [0.0, 1.5]
    expected = [("none", 0.0), *((d, 1.5) for d in ("correction", *directions)), ("prompt-copy", 0.0)]
    edits = rows(clean, "edits")
    assert [(r["direction"], r["coef"]) for r in edits] == [cell for cell in expected for _ in range(2)]
    assert all(r["kl"] is None for r in edits if r["direction"] == "prompt-copy")
    assert all(r["collapse"] in KINDS for r in edits)
    # the vector's card knows no norm of the model, and a run without one says None, never 0
    assert {r["dose"] for r in edits} == {0.0, None}
    tried, test = rows(clean, "validation"), rows(clean, "alignments")
    assert [(r["direction"], r["coef"]) for r in tried[::PROBLEMS]] == [("none", 0.0), ("correction", 1.5)]
    assert not {r["question"] for r in tried} & {r["question"] for r in test}
    # the first round is not steered, so that its corrections are the unsteered loop's
    first = {d: [r["rounds"][:1] for r in test if r["direction"] == d] for d in ("none", "correction")}
    assert first["none"] == first["correction"] and any(first["none"])
    for cut in ("edits", "validation"):
        folder = shutil.copytree(clean, tmp_path / cut)
        (folder / "DONE").unlink()
        lines = (clean / f"{cut}.jsonl").read_bytes().splitlines(keepends=True)
        (folder / f"{cut}.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:30])
        (folder / "alignments.jsonl").unlink()
        run(dataclasses.replace(config, out=folder))
        for file in ("edits.jsonl", "validation.jsonl", "alignments.jsonl", "DONE", "selection.json"):
            assert (folder / file).read_bytes() == (clean / file).read_bytes(), (cut, file)


def test_without_a_vector_it_extracts_one_and_without_problems_runs_no_loop(config, tmp_path, undrawn):
    changes = {"vector": None, "layers": (), "span": "output", "controls": 0, "problems": 0, "upstream": ""}
    out = run(dataclasses.replace(config, **changes, out=tmp_path / "run"))
    assert not (out / "alignments.jsonl").exists() and (out / "DONE").exists()
    chosen = json.loads((out / "selection.json").read_text())["dialogue"]
    assert chosen["source"] == {"contrast": "minimal", "read": "first_divergence", "write": "output"}
    # All blocks but the last are tried: two blocks leave one.
    assert chosen["vector"]["n"] == 4 and [c["layers"] for c in chosen["candidates"]] == [[0]]
    edits = rows(out, "edits")
    assert [r["direction"] for r in edits] == ["none"] * ITEMS + ["correction"] * 2 * ITEMS
    assert all(r["layers"] == chosen["layers"] and r["span"] == "output" for r in edits)
    # What is steered is what is written and read again: nothing where the first token is the end.
    assert all((r["applied"] > 0) == (r["direction"] == "correction" and r["correction"] != "") for r in edits)
    assert any(r["applied"] for r in edits)


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(words)`: exit code and the lines of stderr, progress bars aside, of `python -m steering.sweep`."""

    def call(arguments):
        monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_cli(Sweep, run, "steering.sweep")
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        return stop.value.code, [line for line in lines if line.strip() and "%|" not in line]

    return call


def test_another_configuration_does_not_touch_a_run(finished, config, command):
    before = contents(finished)
    code, said = command([*words(dataclasses.replace(config, items=5)), "--out", str(finished)])
    assert code == 2 and len(said) == 1 and "holds another run: items" in said[0]
    assert contents(finished) == before


QUESTIONS = ("How do I polish the window of my uncle?", "How do I polish the window of my boss?")


@pytest.fixture(scope="module")
def files(dialogue_folder, dialogue_vector, vector_file, tmp_path_factory):
    """Good and bad files by name, all in one folder."""
    home = tmp_path_factory.mktemp("files")
    good = {"question": QUESTIONS[0], "prefix": "", "last": "You can wait.", "correction": "You can wait."}
    short = {k: v for k, v in good.items() if k != "correction"}
    texts = {"good": [good], "malformed": [good, "{"], "short": [good, short], "empty": []}
    # Splits go by a question's hash, so that a few dozen questions fill all three.
    many = [{**good, "question": f"{QUESTIONS[i % 2]} {'please ' * (i // 2)}".strip()} for i in range(60)]
    for name, lines in {**texts, "many": many}.items():
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (home / f"{name}.jsonl").write_text(text)
    (home / "nothing").mkdir()
    dataclasses.replace(dialogue_vector, fingerprint="0123456789abcdef").save(home / "stranger.safetensors")
    shallow = dataclasses.replace(dialogue_vector, directions={0: dialogue_vector.at(0)})
    shallow.save(home / "shallow.safetensors")
    dataclasses.replace(dialogue_vector, site="mlp_out").save(home / "elsewhere.safetensors")
    shutil.copy(vector_file, home / "own.safetensors")
    return {"d": home, "m": dialogue_folder}


MISTAKES = {
    "unknown task": ("--task poetry", "task='poetry' is not one of dialogue"),
    "layer out of range": ("--task dialogue --corrector {m} --layers 2", "layer=2 not in 0..1"),
    "layer twice": ("--task dialogue --corrector {m} --layers 1 1", "names a layer twice"),
    "span unknown": ("--task dialogue --corrector {m} --span outptu", "'outptu' is not one of all"),
    "coef not finite": ("--task dialogue --corrector {m} --coef nan 1", "coef=nan is not finite"),
    "coef infinite": ("--task dialogue --corrector {m} --coef -inf 1", "coef=-inf is not finite"),
    "one coef": ("--task dialogue --corrector {m} --coef 1", "is no range"),
    "too few items": ("--task dialogue --corrector {m} --items 1", "items=1 is below 2"),
    "controls below 0": ("--task dialogue --corrector {m} --controls -1", "controls=-1 is below 0"),
    "rounds that are none": ("--task dialogue --corrector {m} --rounds 2:1", "rounds='2:1' is no range of rounds"),
    "rounds of no loop": ("--task dialogue --corrector {m} --rounds 0:1 --problems 0", "--rounds is about the align"),
    "improve without a loop": (
        "--task dialogue --corrector {m} --improve --problems 0",
        "--improve is about the align",
    ),
    "norms that the card lacks": (
        "--task dialogue --corrector {m} --vector {d}/own.safetensors --coef-unit norm --items 2 --problems 0",
        "no mean_norm of layer 0",
    ),
    "more items than there are": ("--task dialogue --corrector {m} --items 99999", "99999 problems of split 'test'"),
    "malformed line": ("--task jsonl --data {d}/malformed.jsonl --corrector {m}", "malformed.jsonl:2: no JSON"),
    "missing field": ("--task jsonl --data {d}/short.jsonl --corrector {m}", "short.jsonl:2: field 'correction' is"),
    "empty file": ("--task jsonl --data {d}/empty.jsonl --corrector {m}", "empty.jsonl holds no rows"),
    "absent file": ("--task jsonl --data {d}/absent.jsonl --corrector {m}", "absent.jsonl is no file"),
    "no solution to grade by": (
        "--task jsonl --data {d}/many.jsonl --corrector {m} --items 2 --validation 2 --problems 2",
        "has no field 'solution'",
    ),
    "folder that is no model": ("--task dialogue --corrector {d}/nothing", "without config.json, so no model"),
    "corrector that is nowhere": ("--task dialogue --corrector {d}/nowhere", "is no folder here"),
    "upstream that is nowhere": (
        "--task dialogue --corrector {m} --items 2 --validation 2 --upstream {d}/nowhere",
        "is no folder here",
    ),
    "another model's vector": (
        "--task dialogue --corrector {m} --vector {d}/stranger.safetensors",
        "the model is",
    ),
    "vector without the layer": (
        "--task dialogue --corrector {m} --vector {d}/shallow.safetensors --layers 1",
        "layer=1 is not in the vector",
    ),
    "vector of another site": ("--task dialogue --corrector {m} --vector {d}/elsewhere.safetensors", "site='mlp_out'"),
    "no vector": ("--task dialogue --corrector {m} --vector {d}/good.jsonl", "is not a steering vector"),
    "absent vector": ("--task dialogue --corrector {m} --vector {d}/absent.safetensors", "is no file"),
    "one corrector, two tasks": ("--corrector {m} --task dialogue arithmetic", "--corrector goes with one task"),
    "task twice": ("--corrector {m} --task dialogue dialogue", "give each task once"),
    "jsonl without data": ("--task jsonl --corrector {m}", "task 'jsonl' has no data; give --data"),
    "jsonl without corrector": ("--task jsonl --data {d}/good.jsonl", "'jsonl' has no reference corrector"),
    "data for a task that makes its own": ("--task dialogue --data {d}/good.jsonl --corrector {m}", "leave --data out"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_users_mistake_is_one_line_exit_code_2_and_no_run_folder(files, command, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[name]
    coef = [] if "--coef" in arguments else ["--coef", "0", "1"]
    code, said = command([*arguments.format(**files).split(), *coef])
    assert code == 2 and len(said) == 1, said
    assert said[0].startswith("steering.sweep: ") and expected in said[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", ["--coef one two", "--operator multiply", "--itmes 3", "--controls all"])
def test_a_flag_that_does_not_parse_exits_with_2(command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, said = command(arguments.split())
    assert code == 2 and said and not any("Traceback" in line for line in said)
    assert not list(tmp_path.iterdir())


def test_a_vector_read_where_nothing_can_be_written_is_written_where_such_vectors_are(config, dialogue_vector):
    spans = {"prompt_last": "prompt_last", "last": "last", "first_divergence": "output", "question": "question"}
    for read, write in spans.items():
        vector = dataclasses.replace(dialogue_vector, span=read, card={"contrast": "minimal"})
        assert sweep._given(config, vector) == sweep.Source("minimal", read, write)
    vector = dataclasses.replace(dialogue_vector, span="last")
    assert sweep._given(dataclasses.replace(config, span="all"), vector).write == "all"
