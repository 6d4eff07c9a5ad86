import copy
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
from safetensors import safe_open

from corrector import train as module
from corrector.errors import UserError, run_cli
from corrector.heldout import variant
from corrector.models import load
from corrector.prompts import encode
from corrector.recipes import RECIPES, Train, recipe
from corrector.tasks import NAMES
from corrector.train import TAUGHT, given_recipe, new_model, resolve, run, run_resolved, training_texts
from corrector.training import checkpoints
from corrector.training import loop as training
from tests.corrector.pair_file import write_pairs

SIZES = "--d 32 --layers 1 --heads 2 --ff 48 --batch 2 --evaluate 0"
TINY = f"--task jsonl --data pairs.jsonl --steps 3 {SIZES}"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A folder of its own to work in, with some pairs."""
    monkeypatch.chdir(tmp_path)
    write_pairs()


@pytest.fixture
def few_texts(monkeypatch):
    """A vocabulary of fewer texts, for speed."""
    monkeypatch.setattr(module, "training_texts", partial(training_texts, n=120))


def command(monkeypatch, words: str) -> int:
    """The exit code of `python -m corrector.train words`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["train", *words.split()])
    try:
        run_cli(Train, run_resolved, "corrector.train", given_recipe)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def last_line(capsys) -> str:
    """The one line of a user's mistake, without progress bars."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("corrector.train: ")]
    assert len(lines) == 1 and error.rstrip().endswith(lines[0])
    return lines[0]


# The command line


def test_help_reads_well_and_shows_the_recipe_that_is_named():
    words = [sys.executable, "-m", "corrector.train", "--recipe", "dialogue-2", "--help"]
    got = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert got.returncode == 0 and "Traceback" not in got.stderr
    for text in ("usage: python -m corrector.train", "Train a corrector", "--first-weight", "Peak learning rate"):
        assert text in got.stdout
    assert "(default: dialogue-2)" in got.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--recipe nonsense", "recipe='nonsense' is not one of dialogue-upstream"),
        ("--task chess", "task='chess' is not one of dialogue"),
        ("--task dialogue --opener Redo:", "--opener='Redo:' is for task arithmetic"),
        ("--task jsonl --data nowhere.jsonl", "nowhere.jsonl is no file"),
        ("--task arithmetic --steps 0", "steps=0, batch=4: both must be at least 1"),
        ("--task jsonl --data pairs.jsonl --init ./nowhere", "'./nowhere' is no folder here"),
        ("--task jsonl --data pairs.jsonl --vocabulary 9", "vocabulary=9 does not hold"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing_behind(words, message, monkeypatch, capsys):
    assert command(monkeypatch, words) == 2
    assert message in last_line(capsys)
    assert not list(Path().rglob("*.safetensors"))
    assert command(monkeypatch, f"{TINY} --out runs/again") == 0, "a mistake must not stand in the way of the cure"


def test_every_flag_changes_the_recipe_also_to_the_class_default(monkeypatch):
    got: list[Train] = []
    monkeypatch.setattr(sys, "argv", "train --recipe dialogue-1 --seed 0 --steps 5000 --lr 0.01".split())
    run_cli(Train, got.append, "corrector.train", given_recipe)
    assert got == [replace(recipe("dialogue-1"), recipe="dialogue-1", seed=0, steps=5000, lr=0.01)]
    monkeypatch.setattr(sys, "argv", "train --recipe=gsm8k".split())
    run_cli(Train, got.append, "corrector.train", given_recipe)
    assert got[1] == replace(recipe("gsm8k"), recipe="gsm8k")
    monkeypatch.setattr(sys, "argv", ["train", "--task", "arithmetic"])
    run_cli(Train, got.append, "corrector.train", given_recipe)
    assert got[2] == Train(task="arithmetic")


def test_a_config_in_code_lays_its_own_fields_over_the_recipe():
    assert resolve(Train(recipe="arithmetic-l", steps=7)) == replace(
        recipe("arithmetic-l"), recipe="arithmetic-l", steps=7
    )
    assert resolve(Train(d=7)) == Train(d=7)


def test_recipes_name_tasks_that_exist():
    for name, config in RECIPES.items():
        assert config.task in NAMES and config.recipe == "" and config.d % config.heads == 0, name
    with pytest.raises(UserError, match="recipe='x' is not one of " + ", ".join(RECIPES)):
        recipe("x")


# A whole run


@pytest.mark.parametrize("role", ["corrector", "upstream"])
def test_a_tiny_run_writes_a_checkpoint_that_loads(role, monkeypatch, capsys):
    assert command(monkeypatch, f"{TINY} --role {role} --batch 4 --seed 5 --out made") == 0
    assert "wrote made" in capsys.readouterr().out
    names = {p.name for p in Path("made").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "card.json"} <= names
    assert {p.name for p in Path().iterdir()} == {"made", "pairs.jsonl"}, "half-made folders stay behind"
    assert not any(
        p.suffix in {".bin", ".pt", ".pkl", ".pth"} or p.read_bytes()[:2] == b"PK" for p in Path("made").iterdir()
    )

    lm = load("made")
    card = lm.card
    assert lm.template.name == card["template"] == "lab" and lm.n_layers == 1
    assert card["parameters"] == sum(p.numel() for p in lm.model.parameters())
    assert card["role"] == role and card["recipe"]["steps"] == 3 and card["recipe"]["seed"] == 5
    assert "out" not in card["recipe"] and card["recipe"]["data"] == "pairs.jsonl"
    assert card["trained_tokens"] > 0 and 0 < card["final_loss"] < 20 and card["minutes"] >= 0
    assert len(card["data_hash"]) == len(card["weights_sha256"]) == 16
    assert lm.encode("What is 3 + 4?", "", "It is 8.").ids[0] == 3

    assert command(monkeypatch, f"{TINY} --role {role} --batch 4 --seed 5 --out twice") == 0
    assert load("twice").fingerprint == lm.fingerprint, "the same command makes the same weights"
    assert (
        load("twice").card["data_hash"] == card["data_hash"] and load("twice").card["final_loss"] == card["final_loss"]
    )


@pytest.fixture
def answers():
    """Whole answers, as Aligner has them, one a question."""
    rows = [
        {"question": f"What is {a} + {b}?", "answer": f"It is {a + b + 1}. So.", "correction": f"It is {a + b}. So."}
        for a in range(6)
        for b in range(6)
    ]
    Path("answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"--task jsonl --data answers.jsonl --steps 3 {SIZES} --seed 5"


@pytest.mark.parametrize("method", ["aligner", "sft", "dpo", "expert", "antiexpert"])
def test_every_method_writes_a_checkpoint_that_says_what_it_trained_on(method, answers, monkeypatch):
    assert command(monkeypatch, f"{answers} --out stream") == 0
    assert command(monkeypatch, f"{answers} --method expert --seed 6 --out start") == 0
    if method == "dpo":
        pytest.importorskip("trl")
    begin = "--init start" if method in ("sft", "dpo") else ""
    assert command(monkeypatch, f"{answers} --method {method} {begin} --out made") == 0
    assert {p.name for p in Path().iterdir()} == {"made", "start", "stream", "answers.jsonl", "pairs.jsonl"}
    assert not [p for p in Path().rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    card, stream = load("made").card, load("stream").card
    assert card["method"] == card["recipe"]["method"] == method and stream["method"] == "stream"
    assert card["role"] == ("corrector" if method == "aligner" else "upstream")
    equal = ("questions", "distinct_questions", "answers_hash")
    assert [card[k] for k in equal] == [stream[k] for k in equal] and card["questions"] == 6
    assert card["trained_tokens"] > 0 and 0 < card["final_loss"] < 20
    assert ("no_preference" in card) == (method == "dpo")
    if begin:
        assert load("made").fingerprint != load("start").fingerprint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method dpo", "method='dpo' starts from an upstream that writes answers; give --init"),
        ("--method aligner --role upstream", "--role upstream --method aligner: leave one of them out"),
        ("--method aligner --data pairs.jsonl", "has 2 rows of sentences, no whole answer"),
        ("--method aligner --noise 0.1", "noise=0.1 is of correctors that --method stream trains; leave it out"),
        ("--role upstream --unit 2", "unit=2 is of correctors that --method stream trains; leave it out"),
        ("--identity 1.5", "identity=1.5 is no share; choose --identity in 0..1"),
        ("--unit 0", "unit=0 sentences; choose --unit 1 or more"),
    ],
)
def test_a_method_that_cannot_be_trained_so_is_refused(words, message, answers, monkeypatch, capsys):
    assert command(monkeypatch, f"{answers} {words} --out made") == 2
    assert message in last_line(capsys) and not Path("made").exists()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C at the beginning of a step."""
    batch_at = training.batch_at

    def interrupted(at: int, *rest):
        if at == step:
            raise KeyboardInterrupt
        return batch_at(at, *rest)

    monkeypatch.setattr(training, "batch_at", interrupted)


def test_a_half_trained_folder_takes_its_own_config_alone(monkeypatch, capsys):
    words = f"{TINY} --save-every 2 --out made"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert command(patch, words) == 130
    assert "the same command again resumes" in last_line(capsys)
    assert not Path("made").exists() and Path("made.work/state.safetensors").is_file()

    assert command(monkeypatch, f"{words} --lr 0.1 --seed 2") == 2
    line = last_line(capsys)
    assert "made.work holds a half-trained run of another config (other: lr, seed)" in line and "--out" in line
    assert command(monkeypatch, f"{words} --save-every 1") == 0, "how often it is saved does not change the weights"
    assert command(monkeypatch, f"{TINY} --out clean") == 0
    assert load("made").fingerprint == load("clean").fingerprint
    assert load("made").card["final_loss"] == load("clean").card["final_loss"]


def test_a_half_trained_run_from_before_a_field_was_there_resumes(monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert command(patch, f"{TINY} --save-every 2 --out made") == 130
    record = Path("made.work/config.json")
    old = json.loads(record.read_text())
    for name in TAUGHT:
        del old[name]
    record.write_text(json.dumps(old))
    assert command(monkeypatch, f"{TINY} --noise 0.5 --out made") == 2, "the field that it lacks had its default"
    assert command(monkeypatch, f"{TINY} --out made") == 0


def test_a_state_without_its_config_is_not_guessed_at(monkeypatch, capsys):
    Path("made.work").mkdir()
    Path("made.work/state.safetensors").write_bytes(b"")
    assert command(monkeypatch, f"{TINY} --out made") == 2
    assert "made.work has a state but no config.json" in last_line(capsys)


def test_a_folder_that_is_no_checkpoint_is_never_replaced(monkeypatch, capsys):
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years")
    assert command(monkeypatch, f"{TINY} --out thesis") == 2
    assert "thesis exists and is no checkpoint" in last_line(capsys)
    assert Path("thesis/chapter.txt").read_text() == "years"
    assert command(monkeypatch, f"{TINY} --out made") == 0
    before = load("made").fingerprint
    assert command(monkeypatch, f"{TINY} --out made --seed 1") == 0, "a checkpoint is"
    assert load("made").fingerprint != before


def test_what_a_corrector_is_taught_is_on_its_card_and_in_its_weights(monkeypatch):
    assert command(monkeypatch, f"{TINY} --batch 4 --seed 5 --out plain") == 0
    plain = load("plain")
    for words, name, value in (("--identity 0", "identity", 0.0), ("--warmup 1", "warmup", 1.0)):
        assert command(monkeypatch, f"{TINY} --batch 4 --seed 5 {words} --out made") == 0
        made = load("made")
        assert made.card["recipe"][name] == value and made.fingerprint != plain.fingerprint
        assert made.card["answers_hash"] == plain.card["answers_hash"], "of the same questions and answers"


def test_training_goes_on_from_a_checkpoint(monkeypatch):
    assert command(monkeypatch, f"{TINY} --out made") == 0
    assert command(monkeypatch, f"{TINY} --init made --lr 1e-9 --out more") == 0
    assert load("more").fingerprint == load("made").fingerprint, "steps too small for float16 leave it as it began"
    assert load("more").template.name == "lab" and load("more").card["recipe"]["init"] == "made"
    assert command(monkeypatch, f"{TINY} --init made --lr 0.1 --out other") == 0
    assert load("other").fingerprint != load("made").fingerprint


def test_the_default_folder_is_named_after_the_run(answers):
    config = Train(
        task="jsonl", data="pairs.jsonl", steps=1, batch=1, d=32, layers=1, heads=2, ff=48, evaluate=0, seed=4
    )
    assert run(config) == Path("runs/train-jsonl-corrector-4")
    assert run(replace(config, method="expert", data="answers.jsonl")) == Path("runs/train-jsonl-expert-4")
    assert {p.name for p in Path("runs").iterdir()} == {"train-jsonl-corrector-4", "train-jsonl-expert-4"}


def test_a_new_model_has_the_sizes_and_seed_of_its_config(few_texts):
    config = Train(task="arithmetic", d=32, layers=2, heads=2, ff=48, seed=1)
    task = variant("arithmetic")
    lm, same, other = (new_model(c, task) for c in (config, config, replace(config, seed=2)))
    size = lm.model.config
    assert (size.hidden_size, size.num_hidden_layers, size.intermediate_size) == (32, 2, 48)
    assert size.vocab_size == len(lm.tokenizer) and size.eos_token_id == lm.eos_id
    assert lm.fingerprint == same.fingerprint != other.fingerprint
    assert len(new_model(replace(config, vocabulary=300), task).tokenizer) == 300


def test_the_vocabulary_knows_the_held_out_text(few_texts):
    task = variant("arithmetic")
    lm = new_model(Train(task="arithmetic", d=32, layers=1, heads=2, ff=48), task)
    for pair in task.pairs("test", 40):
        assert lm.encode(pair.question, pair.prefix, pair.last).ids
        assert lm.encode_target(pair.correction)[-1] == lm.eos_id


def test_the_record_of_a_run_is_its_config(monkeypatch):
    interrupt_at(monkeypatch, 0)
    assert command(monkeypatch, f"{TINY} --out made") == 130
    record = json.loads(Path("made.work/config.json").read_text())
    assert record == json.loads(json.dumps(asdict(Train(**(record | {"out": Path(record["out"])}))), default=str))
    assert record["steps"] == 3 and record["out"] == "made"


def test_prompts_of_a_new_model_copy_exactly(few_texts):
    lm = new_model(Train(task="arithmetic", d=32, layers=1, heads=2, ff=48), variant("arithmetic"))
    pair = variant("arithmetic").pairs("test", 1)[0]
    encoded = encode(lm.tokenizer, lm.template.render(pair.question, pair.prefix, pair.last))
    start, end = encoded.spans["last"]
    assert lm.encode_target(pair.last)[:-1] == list(encoded.ids[start:end])


# The precision of what is stored


def dtypes(folder):
    with safe_open(Path(folder) / "model.safetensors", "pt") as file:
        return {str(file.get_tensor(name).dtype) for name in file.keys()}


def test_checkpoints_follow_their_start_or_the_flag(monkeypatch):
    assert command(monkeypatch, f"{TINY} --out made") == 0
    assert dtypes("made") == {"torch.float16"}, "from scratch"
    assert command(monkeypatch, f"{TINY} --init made --out again") == 0
    assert dtypes("again") == {"torch.float16"}
    assert command(monkeypatch, f"{TINY} --init made --store bfloat16 --out brain") == 0
    assert dtypes("brain") == {"torch.bfloat16"} and "stored in bfloat16" in load("brain").card["note"]
    assert command(monkeypatch, f"{TINY} --init brain --out child") == 0
    assert dtypes("child") == {"torch.bfloat16"}, "as the start is stored"
    assert command(monkeypatch, f"{TINY} --init brain --store float32 --out whole") == 0
    assert dtypes("whole") == {"torch.float32"}


def test_what_the_stored_precision_cannot_hold_stops_the_save(tiny_lm, tmp_path):
    lm = replace(tiny_lm, model=copy.deepcopy(tiny_lm.model))
    lm.model.lm_head.weight.data[3, 4] = 1e5
    with pytest.raises(UserError, match=r"weight .* reaches 1e\+05, more than float16 holds; give --store bfloat16"):
        checkpoints.save(lm, tmp_path / "c", {})
    assert not (tmp_path / "c").exists()
    checkpoints.save(lm, tmp_path / "c", {}, stored="bfloat16")
    assert dtypes(tmp_path / "c") == {"torch.bfloat16"}
    lm.model.lm_head.weight.data[3, 4] = float("nan")
    with pytest.raises(RuntimeError, match="is not finite after training"):
        checkpoints.save(lm, tmp_path / "d", {}, stored="bfloat16")
