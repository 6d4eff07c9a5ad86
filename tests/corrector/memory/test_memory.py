"""Memory: estimates against what is really held, what is free, and the refusal of what cannot fit."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from corrector.errors import UserError, run_cli
from corrector.memory import Memory, check, check_fits, estimate, free, gigabytes, ignoring
from corrector.models import load
from probes.capture import capture
from probes.spans import Sequence
from steering import sweep as sweep_module

# by their names: the packages have a function or class of the same name
align_module = importlib.import_module("corrector.align")
free_module = importlib.import_module("corrector.memory.free")


def test_the_estimate_counts_the_weights_and_the_cache_that_decoding_fills(arch_lm):
    model, batch, length = arch_lm.model, 3, 20
    need = estimate(model.config, torch.float32, batch, length)
    assert need.parameters == sum(w.numel() for w in model.parameters()) and need.weights == 4 * need.parameters
    ids = torch.randint(5, 50, (batch, length))
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
    held = sum(x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values))
    assert need.cache == held and need.logits == batch * model.config.vocab_size * 4
    assert need.total == need.weights + need.cache + need.logits


def test_precision_halves_and_quantisation_shrinks_the_weights(tiny_lm):
    config = tiny_lm.model.config
    full, half = (estimate(config, dtype, 1, 8) for dtype in (torch.float32, torch.bfloat16))
    assert (half.weights, half.cache) == (full.weights // 2, full.cache // 2)
    four = estimate(config, torch.bfloat16, 1, 8, "4bit")
    assert four.weights == full.parameters // 2 and four.cache == half.cache


@pytest.mark.parametrize(("n", "text"), [(0, "0.0 MiB"), (3 * 2**19, "1.5 MiB"), (2**34 + 2**26, "16.1 GiB")])
def test_bytes_as_text(n, text):
    assert gigabytes(n) == text


def test_this_machine_has_memory():
    assert free("cpu") > 1e8


# What a run holds, against the process's own peak


PEAK = """
import gc, json, sys
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from corrector.decoding import decode
from corrector.memory import Share, capturing, decoding
from corrector.models import LanguageModel, load
from corrector.prompts import Encoded
from probes.capture import capture_all
from probes.spans import Sequence

torch.set_num_threads(1)
asked = json.loads(sys.argv[1])
lm = load("dialogue")
if asked["size"]:
    config = LlamaConfig(**asked["size"], attn_implementation=asked["attention"])
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    lm = LanguageModel(model, lm.tokenizer, lm.template, "random")


def status(name):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def grown(work):
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


rows, n, draft = asked["rows"], asked["tokens"], asked["draft"]
drawn = torch.randint(5, lm.model.config.vocab_size, (rows, n), generator=torch.Generator().manual_seed(0)).tolist()
prompts = [Encoded(tuple(ids), {"prompt": (0, n), "prompt_last": (n - 1, n), "last": (n - draft, n)}) for ids in drawn]
kept = []
def correct(some, batch):
    drafts = [p.ids[-draft:] for p in some]
    keep = lambda i, x: kept.append(x.clone())
    decode(lm, some, max_new_tokens=draft, drafts=drafts, batch_size=batch, on_draft=keep)
def read(some):
    kept.append(capture_all(lm, [Sequence(p.ids, p.spans) for p in some], spans=("prompt_last",), batch_size=rows))
correct(prompts[:1], 1)
read(prompts[:1])
share = Share(rows, n + draft, n + draft, draft + 1, kept_logits=rows * draft)
d = lm.model.config.hidden_size
print(json.dumps({
    "parameters": lm.model.num_parameters(),
    "decoding": [decoding(lm, share).beside_weights, grown(lambda: correct(prompts, rows))],
    "capturing": [capturing(lm, rows, lm.n_layers * d, rows, n, 4).beside_weights, grown(lambda: read(prompts))],
}))
"""
LLAMA = {"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12}
LLAMA |= {"num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 1024}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel resets no peak")
@pytest.mark.parametrize(
    ("size", "attention", "rows", "tokens", "draft", "least"),
    [
        ({}, "", 64, 300, 24, 1e6),  # a shipped miniature
        (LLAMA, "sdpa", 6, 96, 16, 1e8),
    ],
)
def test_the_estimate_is_near_the_measured_peak(size, attention, rows, tokens, draft, least):
    """Within half and twice of what the process really grew by, of decoding with kept logits and of a capture."""
    asked = {"size": size, "attention": attention, "rows": rows, "tokens": tokens, "draft": draft}
    # freed memory goes back to the kernel at once, so that growth is what is held
    env = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, json.dumps(asked)], env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["parameters"] > least
    for name in ("decoding", "capturing"):
        estimated, measured = found[name]
        assert 0.5 < estimated / measured < 2, f"{name}: {estimated / measured:.2f}, {measured / 2**20:.0f} MiB"


# What is free, and the refusal


def machine(tmp_path, **files):
    for name, text in files.items():
        file = tmp_path / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "proc", tmp_path / "groups"


def test_free_memory_is_what_the_container_leaves(tmp_path, monkeypatch):
    proc, groups = machine(
        tmp_path,
        proc__meminfo="MemTotal: 4000 kB\nMemFree: 100 kB\nMemAvailable: 3000 kB\n",
        proc__self__cgroup="0::/box\n",
        groups__box__memory_dot_max="2000000\n",
        groups__box__memory_dot_current="1500000\n",
        groups__box__memory_dot_stat="inactive_file 100000\n",
        groups__memory_dot_max="max\n",
    )
    monkeypatch.setattr(free_module, "PROC", proc)
    monkeypatch.setattr(free_module, "CGROUPS", groups)
    assert free("cpu") == 2_000_000 - 1_500_000 + 100_000
    (proc / "self" / "cgroup").write_text("5:cpu,memory:/gone\n1:name=systemd:/x\n")
    assert free("cpu") == 3000 * 1024  # no limit is known
    machine(
        tmp_path,
        groups__memory__memory_dot_limit_in_bytes="900000\n",
        groups__memory__memory_dot_usage_in_bytes="100000\n",
        groups__memory__memory_dot_stat="total_inactive_file 0\n",
    )
    assert free("cpu") == 800_000


def test_what_cannot_fit_is_refused_with_numbers_and_cure(monkeypatch):
    monkeypatch.setattr(check, "free", lambda device: 2**30)
    need = Memory(10, 5 * 2**30, 2**30, 2**29, 0)
    with pytest.raises(UserError, match=r"about 6\.5 GiB \(weights 5\.0 GiB, loaded; cache 1\.0 GiB, logits 512") as e:
        check_fits(need, [torch.device("cpu")], "a smaller --block")
    assert "1.0 GiB free" in str(e.value) and "choose a smaller --block" in str(e.value)
    assert "--ignore-memory" in str(e.value)
    with ignoring():
        assert check_fits(need, [torch.device("cpu")], "x").startswith("needs about 6.5 GiB")
    with ignoring(False), pytest.raises(UserError):
        check_fits(need, [torch.device("cpu")], "x")
    assert check_fits(Memory(1, 2**40, 2**29, 0, 0), [torch.device("cpu")], "x")  # weights are loaded already


def test_weights_that_cannot_fit_are_refused_before_they_are_read(tiny_lm, tmp_path, monkeypatch):
    tiny_lm.model.save_pretrained(tmp_path)
    tiny_lm.tokenizer.save_pretrained(tmp_path)
    n = 4 * sum(w.numel() for w in tiny_lm.model.parameters())
    monkeypatch.setattr(check, "free", lambda device: n - 1)
    with pytest.raises(UserError, match=r"needs about .* weights, and .* are free on cpu; choose --dtype bfloat16"):
        load(tmp_path, "lab")
    assert load(tmp_path, "lab", dtype="bfloat16").n_layers == tiny_lm.n_layers
    with ignoring():
        assert load(tmp_path, "lab").fingerprint == tiny_lm.fingerprint
    monkeypatch.setattr(check, "free", lambda device: n)
    assert load(tmp_path, "lab").n_layers == tiny_lm.n_layers


@pytest.mark.parametrize(
    "command",
    [
        ["align", "--task", "arithmetic", "--problems", "4"],
        ["sweep", "--task", "arithmetic", "--items", "4", "--problems", "2", "--pairs", "8", "--validation", "2"],
    ],
)
def test_commands_say_what_they_need_and_refuse_before_they_begin(command, tmp_path, monkeypatch, capsys):
    verb, *flags = command
    module = {"align": align_module, "sweep": sweep_module}[verb]
    config = {"align": align_module.Align, "sweep": sweep_module.Sweep}[verb]
    real = check.free
    monkeypatch.setattr(check, "free", lambda device: 0 if loaded else real(device))
    loaded = []
    for name in ("corrector.align", "steering.sweeping.work", "corrector.upstreams.choice"):
        monkeypatch.setattr(f"{name}.load", lambda *a, **k: loaded.append(a) or _load_unchecked(*a, **k))
    out = tmp_path / verb
    monkeypatch.setattr(sys, "argv", ["x", *flags, "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        run_cli(config, module.run, "x")
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and "needs about" in said and "0.0 MiB free beside the weights: too little" in said
    assert not list(out.glob("*.jsonl"))


def _load_unchecked(*args, **kwargs):
    with ignoring():
        return load(*args, **kwargs)


def test_the_flag_runs_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "free", lambda device: 0)
    flags = ["--task", "arithmetic", "--problems", "2", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["x", *flags, "--ignore-memory"])
    run_cli(align_module.Align, align_module.run, "x")
    assert "memory: needs about" in capsys.readouterr().err and (tmp_path / "run" / "DONE").exists()


def test_a_capture_that_cannot_fit_is_refused(tiny_lm, monkeypatch):
    monkeypatch.setattr(check, "free", lambda device: 10)
    with pytest.raises(UserError, match=r"choose batch_size below 32, fewer layers or spans.*stream by capture_to"):
        capture(tiny_lm, [Sequence((5, 6, 7), {"prompt_last": (2, 3)})])
