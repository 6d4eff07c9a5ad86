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

from analysis.summary import summarise
from corrector import tasks
from corrector.decoding import decode
from corrector.errors import run_cli
from corrector.models import load
from probes.capture import capture, sequence
from steering import sweep
from steering.controls import battery
from steering.engines import local
from steering.sweep import Sweep, run
from steering.sweeping.collapse import KINDS
from steering.sweeping.selection import Source
from steering.sweeping.work import given
from steering.vectors import SteeringVector

ROOT = Path(__file__).parents[2]
ITEMS, PROBLEMS, BLOCK = 4, 2, 2
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
        block=BLOCK,
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


def test_edits_are_the_unsteered_cell_and_every_direction_at_every_other_coefficient_block_by_block(finished):
    edits = rows(finished, "edits")
    assert all(row.keys() >= FIELDS for row in edits)
    cells = [("none", 0.0), *((d, c) for d in ("correction", "random-00") for c in (-1.0, 1.5))]
    blocks = [range(start, start + BLOCK) for start in range(0, ITEMS, BLOCK)]
    expected = [(*cell, item) for block in blocks for cell in cells for item in block]
    assert [(r["direction"], r["coef"], r["item"]) for r in edits] == expected
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


def test_only_what_is_missing_is_computed_again(finished, config, tmp_path, undrawn, monkeypatch):
    out = shutil.copytree(finished, tmp_path / "run")
    (out / "DONE").unlink()
    lines = (out / "edits.jsonl").read_bytes().splitlines(keepends=True)
    (out / "edits.jsonl").write_bytes(b"".join(lines[:3]))
    (out / "edits.pending").mkdir()
    (out / "edits.pending" / f"{len(lines) // 2:09d}.jsonl").write_bytes(b"".join(lines[len(lines) // 2 :]))
    computed = []

    def compute(config, work, grid, block):
        computed.append(str(block))
        return own(config, work, grid, block)

    own = local.compute
    monkeypatch.setattr(local, "compute", compute)
    run(dataclasses.replace(config, out=out))
    assert computed == ["dialogue 0..1 of edits"] and contents(out) == contents(finished)


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
    assert [r["direction"] for r in edits] == (["none"] * BLOCK + ["correction"] * 2 * BLOCK) * (ITEMS // BLOCK)
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


@pytest.fixture(scope="module")
def carded(dialogue_lm, dialogue_vector):
    """The fixture's vector with a card as extraction writes it: thresholds that half of the test items pass."""
    prompts = [sequence(dialogue_lm, p) for p in tasks.get("dialogue").pairs("test", ITEMS)]
    states, layers = capture(dialogue_lm, prompts), {}
    for k, v in dialogue_vector.directions.items():
        at = (states.at(k) @ v / v.norm()).sort().values
        middle = float(at[1:3].mean())
        layers[str(k)] = {"origin": middle, "threshold": middle, "mean_norm": 8.0, "dose": 1.5, "auroc": 0.9}
    return dataclasses.replace(dialogue_vector, card={"contrast": "minimal", "layers": layers})


@pytest.fixture(scope="module")
def special(config, carded, tmp_path_factory):
    """Clamped behind a gate, from a vector whose card has the numbers that both need."""
    file = carded.save(tmp_path_factory.mktemp("carded") / "v.safetensors")
    return dataclasses.replace(config, vector=file, operator="clamp", gate="prompt_last", improve=True)


def test_clamp_behind_a_gate_runs_coefficient_0_beside_the_unsteered_cell_and_resumes(
    special, tmp_path, undrawn, capsys
):
    clean = run(dataclasses.replace(special, out=tmp_path / "clean"))
    assert f"dialogue: the gate opened 2 of {ITEMS} rows in each of 6 cells" in capsys.readouterr().err
    chosen = json.loads((clean / "selection.json").read_text())["dialogue"]
    assert chosen["condition"] == {
        **{"when": "prompt_last", "side": "above", "layer": 0, "site": "resid_post", "direction": "own"},
        "threshold": pytest.approx(chosen["vector"]["layers"]["0"]["threshold"]),
    }
    assert list(chosen["origins"]["random-00"]) == ["0", "1"] and "origins_absent" not in chosen
    assert [v["coef"] for v in chosen["validation"]] == [-1.0, 0.0, 1.5]
    edits = rows(clean, "edits")
    cells = [("none", 0.0), *((d, c) for d in ("correction", "random-00") for c in (-1.0, 0.0, 1.5))]
    by_cell = {cell: [r for r in edits if (r["direction"], r["coef"]) == cell] for cell in cells}
    assert sum(map(len, by_cell.values())) == len(edits) == 7 * ITEMS
    for (direction, _), of_cell in by_cell.items():
        steered = direction != "none"
        assert [r["applied"] for r in of_cell] == [2 * bool(r["opened"]) for r in of_cell]
        assert [r["opened"] for r in of_cell].count(True) == (2 if steered else 0)
        # the two sides of a closed row's divergence may be of other batches, which differ by rounding
        assert all((r["kl"] > 1e-9) == bool(r["opened"]) for r in of_cell)
        assert {r["dose"] for r in of_cell} == ({None} if steered else {0.0})
    # closed rows are the unsteered ones, in every cell
    plain = [r["correction"] for r in by_cell["none", 0.0]]
    for of_cell in by_cell.values():
        assert all(r["opened"] or r["correction"] == text for r, text in zip(of_cell, plain, strict=True))
    loop = {(a["direction"], a["coef"]) for a in rows(clean, "alignments")}
    assert loop == {("upstream", 0.0), *cells[:4]}
    table = summarise(clean).set_index(["direction", "coef"])
    assert table.loc[("correction", 0.0), "opened"] == 0.5 and table.loc[("none", 0.0), "kl"] == 0
    assert table.loc[("correction", 0.0), "kl"] > 0
    cut = shutil.copytree(clean, tmp_path / "cut")
    (cut / "DONE").unlink()
    (cut / "edits.jsonl").write_bytes(b"".join((clean / "edits.jsonl").read_bytes().splitlines(keepends=True)[:9]))
    (cut / "alignments.jsonl").unlink()
    run(dataclasses.replace(special, out=cut))
    for file in ("edits.jsonl", "validation.jsonl", "alignments.jsonl", "DONE", "selection.json"):
        assert (cut / file).read_bytes() == (clean / file).read_bytes(), file


def test_a_saved_condition_stays_with_the_run(special, carded, tmp_path, undrawn):
    file = carded.save(tmp_path / "condition.safetensors")
    changes = {"operator": "add", "problems": 0, "improve": False, "controls": 0, "gate_vector": file}
    config = dataclasses.replace(special, **changes, gate_side="below", gate_layer=0, out=tmp_path / "run")
    out = run(config)
    chosen = json.loads((out / "selection.json").read_text())["dialogue"]["condition"]
    assert (chosen["direction"], chosen["side"], chosen["layer"]) == (carded.digest, "below", 0)
    assert SteeringVector.load(out / "condition-dialogue.safetensors").digest == carded.digest
    whole = (out / "edits.jsonl").read_bytes()
    (out / "DONE").unlink()
    (out / "edits.jsonl").unlink()
    dataclasses.replace(carded, directions={k: -v for k, v in carded.directions.items()}).save(file)
    run(config)
    assert (out / "edits.jsonl").read_bytes() == whole


def test_controls_without_origins_are_left_out_and_the_selection_says_why(special, carded, tmp_path, undrawn):
    file = dataclasses.replace(carded, card={**carded.card, "contrast": "copy_rewrite"}).save(
        tmp_path / "v.safetensors"
    )
    changes = {"vector": file, "gate": "", "problems": 0, "improve": False}
    out = run(dataclasses.replace(special, **changes, out=tmp_path / "run"))
    assert {r["direction"] for r in rows(out, "edits")} == {"none", "correction"}
    chosen = json.loads((out / "selection.json").read_text())["dialogue"]
    assert chosen["origins"] == {} and "no matched pair" in chosen["origins_absent"] and "condition" not in chosen


def test_a_gate_that_opens_no_row_is_an_error_and_the_run_is_not_done(special, carded, tmp_path, undrawn, command):
    layers = {k: {**row, "threshold": 1e6} for k, row in carded.card["layers"].items()}
    file = dataclasses.replace(carded, card={**carded.card, "layers": layers}).save(tmp_path / "v.safetensors")
    shut = dataclasses.replace(special, vector=file, problems=0, improve=False)
    code, said = command([*words(shut), "--out", str(tmp_path / "shut")])
    assert code == 2 and "the gate at layer 0 opens for none of 2 validation pairs" in said[-1]
    assert not (tmp_path / "shut" / "edits.jsonl").exists() and not (tmp_path / "shut" / "DONE").exists()


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
    "origins that the card lacks": (
        "--task dialogue --corrector {m} --vector {d}/own.safetensors --operator clamp",
        "no origin of layer 0, which --operator clamp needs; extract the vector anew",
    ),
    "thresholds that the card lacks": (
        "--task dialogue --corrector {m} --vector {d}/own.safetensors --gate token",
        "no threshold of layer 1, which --gate needs; extract the vector anew",
    ),
    "clamp in nats": ("--task dialogue --corrector {m} --operator clamp --coef-unit kl", "clamp acts at coefficient 0"),
    "side of no gate": ("--task dialogue --corrector {m} --gate-side below", "are of a gate; choose --gate"),
    "layer of no gate": ("--task dialogue --corrector {m} --gate-layer 0", "are of a gate; choose --gate"),
    "vector of no gate": (
        "--task dialogue --corrector {m} --gate-vector {d}/own.safetensors",
        "are of a gate; choose --gate",
    ),
    "gate behind the layer": (
        "--task dialogue --corrector {m} --gate token --gate-layer 1 --layers 0",
        "gate_layer=1 is behind layer 0",
    ),
    "gate at the last layer": ("--task dialogue --corrector {m} --gate token --gate-layer 1", "is behind layer 0"),
    "gate out of range": ("--task dialogue --corrector {m} --gate token --gate-layer 7", "gate_layer=7 not in 0..1"),
    "another model's condition": (
        "--task dialogue --corrector {m} --gate token --gate-vector {d}/stranger.safetensors",
        "the model is",
    ),
    "one condition, two tasks": ("--gate token --gate-vector {d}/own.safetensors", "--gate-vector goes with one task"),
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
        assert given(config, vector) == Source("minimal", read, write)
    vector = dataclasses.replace(dialogue_vector, span="last")
    assert given(dataclasses.replace(config, span="all"), vector).write == "all"
