"""Training in several processes, in shards and with adapters: the weights of one process, and every row counted."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from corrector.errors import UserError, run_cli
from corrector.models import load
from corrector.recipes import Train
from corrector.train import run_resolved
from corrector.training import distributed
from corrector.training import loop as training
from corrector.training.distributed import Ranks, joined
from corrector.training.loop import batch_at, train
from corrector.training.packing import collate
from corrector.training.states import STATE
from tests.corrector.pair_file import write_pairs
from tests.corrector.training.test_training import CONFIG, POOL, TASK, fresh_lm
from tests.corrector.training.together import BASE, CASES

ROOT = Path(__file__).parents[3]
ROUNDED = ("mixed", "sharded-half")
EXACT = [name for name in CASES if name not in ROUNDED]
MOVED = 5e-4
"""Every case moves its weights by more than this, and two processes by TOLERANCE from one."""
TOLERANCE = 1e-6


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} | more


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """What one process and what two make of CASES."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1]), "WORLD_SIZE": "2"}
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    script = str(Path(__file__).with_name("together.py"))
    ranks = [
        subprocess.Popen([sys.executable, script, str(two)], env=environment(RANK=str(k), **at), stderr=subprocess.PIPE)
        for k in range(2)
    ]
    alone = subprocess.run([sys.executable, script, str(one)], env=environment(), capture_output=True, timeout=200)
    try:
        said = [p.communicate(timeout=200)[1].decode() for p in ranks]
    finally:
        for p in ranks:
            p.kill()
    assert [alone.returncode, *(p.returncode for p in ranks)] == [0, 0, 0], (alone.stderr.decode(), *said)
    return one, two


def distance(a: Path, b: Path) -> float:
    x, y = load_file(a), load_file(b)
    assert x.keys() == y.keys() and [t.shape for t in x.values()] == [t.shape for t in y.values()]
    return max((x[k].float() - y[k].float()).abs().max().item() for k in x)


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_make_the_weights_of_one(name, made):
    one, two = made
    assert distance(one / f"{name}.safetensors", two / f"{name}.safetensors") < TOLERANCE
    assert distance(one / name / STATE, two / name / STATE) < TOLERANCE, "moments and step counts, whole"
    assert {p.name for p in (two / name).iterdir()} == {STATE}


@pytest.mark.parametrize("name", ROUNDED)
def test_bfloat16_arithmetic_differs_by_its_rounding_alone(name, made):
    one, two = made
    assert distance(one / f"{name}.safetensors", two / f"{name}.safetensors") < MOVED
    told = [json.loads((folder / "told.json").read_text())[name]["loss"] for folder in made]
    assert told[0] == pytest.approx(told[1], rel=2e-3)


def test_frozen_weights_in_bfloat16_stay_so_in_shards(made):
    weights = load_file(made[1] / "sharded-half.safetensors")
    kinds = {"lora" in name: w.dtype for name, w in weights.items()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}


def test_accumulated_and_recomputed_steps_are_the_same_steps(made):
    one, _ = made
    for name in ("accumulated", "checkpointed"):
        assert distance(one / f"{name}.safetensors", one / "plain.safetensors") < TOLERANCE
    for name in ("upstream", "mixed"):
        assert distance(one / f"{name}.safetensors", one / "plain.safetensors") > MOVED / 2, "others are told apart"


def test_every_row_and_token_is_counted_whatever_the_processes(made):
    one, two = (json.loads((folder / "told.json").read_text()) for folder in made)
    for name, config in CASES.items():
        assert one[name]["rows"] == two[name]["rows"] == config.steps * config.batch
        for count in ("trained_tokens", "bare_rows"):
            assert one[name][count] == two[name][count], (name, count)
        assert one[name]["trained_tokens"] > 100
    assert two["upstream"]["bare_rows"] > 0 == two["plain"]["bare_rows"]


@pytest.mark.parametrize("name", ["plain", "sharded"])
def test_two_processes_resume_to_the_same_weights(name, made):
    _, two = made
    assert distance(two / f"stopped-{name}.safetensors", two / f"{name}.safetensors") == 0


def test_processes_with_other_questions_are_refused(made):
    told = json.loads((made[1] / "told.json").read_text())["unequal"]
    assert told.startswith("process 1 and process 0 have different questions; give all the same command")


def test_parts_of_a_step_are_its_rows(make_lm):
    lm = fresh_lm(make_lm)
    for role in ("corrector", "upstream"):
        config = Train(**(vars(CONFIG) | {"role": role, "batch": 5}))
        whole = batch_at(3, POOL, TASK, lm, config)
        parts = [batch_at(3, POOL, TASK, lm, config, (k, 3)) for k in range(3)]
        assert [len(p.ids) for p in parts] == [2, 2, 1]
        for k, part in enumerate(parts):
            for i, ids in enumerate(part.ids.tolist()):
                row = whole.ids[k + 3 * i].tolist()
                assert ids == row[: len(ids)] and set(row[len(ids) :]) <= {lm.tokenizer.pad_token_id}


def test_a_row_or_a_token_that_is_lost_stops_the_run(make_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "collate", lambda rows, pad: collate(rows[:-1], pad))
    with pytest.raises(RuntimeError, match="step 0 trained 1 of 2 rows"):
        train(fresh_lm(make_lm), TASK, POOL, CONFIG, tmp_path)
    monkeypatch.undo()
    nll_of = training.nll_of
    monkeypatch.setattr(training, "nll_of", lambda model, batch: (nll_of(model, batch)[0], torch.tensor(3)))
    with pytest.raises(RuntimeError, match=r"step 0 trained 2 of 2 rows and 3 of \d+ tokens"):
        train(fresh_lm(make_lm), TASK, POOL, CONFIG, tmp_path)
    assert not (tmp_path / STATE).exists()


def test_rows_of_a_state_from_before_they_were_counted(make_lm, tmp_path):
    wanted = train(fresh_lm(make_lm), TASK, POOL, CONFIG, tmp_path)
    with safe_open(tmp_path / STATE, "pt") as f:
        told = {k: v for k, v in f.metadata().items() if k not in ("rows", "bare")}
    save_file(load_file(tmp_path / STATE), tmp_path / STATE, told)
    got = train(fresh_lm(make_lm), TASK, POOL, CONFIG, tmp_path)
    assert got["rows"] == CONFIG.steps * CONFIG.batch and math.isnan(got["bare_rows"])
    assert got["trained_tokens"] == wanted["trained_tokens"] and got["loss"] == wanted["loss"]


# The command line


@pytest.fixture
def pairs(monkeypatch, tmp_path) -> str:
    """Words of a small run on pairs of its own, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    write_pairs()
    return "--task jsonl --data pairs.jsonl --steps 3 --batch 4 --evaluate 0"


SIZES = "--d 32 --layers 1 --heads 2 --ff 48"


def command(monkeypatch, words: str) -> int:
    """The exit code of `python -m corrector.train words`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["train", *words.split()])
    try:
        run_cli(Train, run_resolved, "corrector.train")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_torchrun_shards_a_run_and_writes_one_checkpoint(pairs, monkeypatch):
    words = f"{pairs} {SIZES} --precision float32"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    got = subprocess.run(
        [*start, "corrector.train", *f"{words} --shard --out two".split()],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert got.returncode == 0, got.stderr
    assert got.stdout.count("wrote two") == 1
    assert {p.name for p in Path().iterdir()} == {"pairs.jsonl", "two"}
    assert command(monkeypatch, f"{words} --out one") == 0
    one, two = load("one"), load("two")
    assert (one.card["processes"], two.card["processes"]) == (1, 2)
    for count in ("questions", "rows", "bare_rows", "trained_tokens", "answers_hash", "data_hash"):
        assert one.card[count] == two.card[count], count
    assert two.card["rows"] == 12 and type(two.model) is type(one.model)
    # Stored in float16, a weight on the edge may be rounded to either side.
    assert distance(Path("one/model.safetensors"), Path("two/model.safetensors")) < 1e-3


def test_an_adapter_is_written_merged_or_resumed(pairs, monkeypatch):
    pytest.importorskip("peft")
    assert command(monkeypatch, f"{pairs} {SIZES} --out base") == 0
    words = f"{pairs} --init base --lora-rank 2 --lr 0.5 --save-every 2"
    assert command(monkeypatch, f"{words} --out adapter") == 0
    assert {"adapter_config.json", "adapter_model.safetensors", "card.json"} < {
        p.name for p in Path("adapter").iterdir()
    }
    assert not list(Path("adapter").glob("model*")) and not Path("adapter.work").exists()
    base, adapter = load("base"), load("adapter")
    assert adapter.fingerprint != base.fingerprint and adapter.template.name == base.template.name == "lab"
    assert 0 < adapter.card["trained_parameters"] < adapter.card["parameters"]
    assert "rank 2; stored as an adapter" in adapter.card["note"]

    assert command(monkeypatch, f"{words} --lora-merge --out merged") == 0
    merged = load("merged")
    assert not Path("merged/adapter_config.json").exists() and type(merged.model) is type(base.model)
    for name, w in adapter.model.state_dict().items():
        torch.testing.assert_close(merged.model.state_dict()[name], w.half().float(), atol=2e-4, rtol=2e-3)

    with monkeypatch.context() as patch:
        patch.setattr(training, "batch_at", lambda at, *rest: batch_at(at, *rest) if at < 2 else interrupt())
        assert command(patch, f"{words} --out resumed") == 130
    assert command(monkeypatch, f"{words} --out resumed") == 0
    assert load("resumed").fingerprint == adapter.fingerprint, "frozen weights are those of the base again"


def interrupt() -> None:
    raise KeyboardInterrupt


def test_frozen_weights_in_bfloat16_train_an_adapter_in_float32(pairs, monkeypatch):
    pytest.importorskip("peft")
    assert command(monkeypatch, f"{pairs} {SIZES} --out base") == 0
    words = "--init base --lora-rank 2 --precision bfloat16 --checkpointing --accumulate 2"
    assert command(monkeypatch, f"{pairs} {words} --out adapter") == 0
    assert {w.dtype for w in load_file("adapter/adapter_model.safetensors").values()} == {torch.float32}
    assert load("adapter").fingerprint != load("base").fingerprint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--accumulate 5", "batch=4 cannot be cut into 5 parts (1 processes, accumulate=5); choose --batch 5 or more"),
        ("--accumulate 0", "accumulate=0: choose --accumulate 1 or more"),
        ("--shard", "shard=True and one process; start several by torchrun"),
        ("--shard --compile", "compile=True and shard=True were never run together"),
        ("--lora-rank 2", "lora_rank=2 adapts a model that exists; give --init"),
        ("--lora-rank -1", "lora_rank=-1: choose --lora-rank 1 or more"),
        ("--lora-merge", "lora_merge=True and no adapter to merge; give --lora-rank"),
        ("--precision bfloat16", "precision='bfloat16' would round small updates of the weights away"),
        ("--method dpo --init base --checkpointing", "checkpointing=True is not for --method dpo, which trl trains"),
    ],
)
def test_what_cannot_be_trained_so_is_refused(words, message, pairs, monkeypatch, capsys):
    assert command(monkeypatch, f"{pairs} {words} --out made") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not Path("made").exists()


def test_devices_and_processes_that_are_not_there_are_refused(pairs, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert command(monkeypatch, f"{pairs} --device cuda --out made") == 2
    assert "device='cuda' and 0 GPUs, none of which is number 0" in capsys.readouterr().err
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert command(monkeypatch, f"{pairs} --out made") == 2
    assert "accelerate launch asks for its own FSDP; leave that out, and give --shard" in capsys.readouterr().err
    with pytest.raises(UserError, match="asks for its own FSDP"), joined("cpu"):
        pass
    assert not Path("made.work").exists()


def test_alone_nothing_is_sent_and_nothing_changes():
    assert Ranks().first and Ranks().sums(1, 2.5) == [1, 2.5]
    Ranks().agree(anything=object())
    linear = torch.nn.Linear(2, 2)
    assert distributed.spread(linear, [], Ranks(), shard=False) is linear
    assert BASE.precision == "float32"
