"""Tiny checkpoints of five architectures, with real kinds of tokenizers and chat templates, go the whole way: train a
step, doctor, extract, scan, sweep, align."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from corrector.align import Align
from corrector.align import run as align
from corrector.doctor import Doctor, examine
from corrector.models import CARD, load
from corrector.recipes import Train
from corrector.train import run_resolved as train
from probes.scan import Scan
from probes.scan import run as scan
from probes.scanning import measure
from steering.extract import Extract, extract
from steering.sweep import Sweep
from steering.sweep import run as sweep
from tests.conftest import build_model
from tests.corrector.real_tokenizers import tokenizer_of

TASK, DATA = "jsonl", "pairs.jsonl"
OWN = {
    "corrector": "Question: {question}\nSo far: {prefix}\nNext: {last}\nBetter:",
    "upstream": "Question: {question}\nSo far: {prefix}",
    "correction_prefix": " ",
}
CASES = {
    "llama": ("unigram", "stream-aligner/chat"),
    "gemma2": ("gemma", "stream-aligner/gemma"),
    "qwen2": ("qwen", "chat"),
    "gpt2": ("gpt2", "stream-aligner"),
    "gpt_neox": ("gpt2", "own.json"),
}


def rows():
    """Two sentences a question, one to copy and one to rewrite."""
    for i in range(120):
        question, right = f"Tom has {i} pens and buys 2 more. How many has he?", f"He has {i + 2} pens."
        for last in (right, f"He has {i + 3} pens."):
            pair = {"question": question, "prefix": "Let us add.", "last": last, "correction": right}
            yield pair | {"solution": str(i + 2)}


@pytest.fixture
def quiet(monkeypatch):
    """Without the figures, which run as programs of their own and have their own tests."""
    run = subprocess.run

    def instead(command, *args, **kwargs):
        drawn = any(str(word).startswith("figures.") for word in command)
        return SimpleNamespace(returncode=0) if drawn else run(command, *args, **kwargs)

    monkeypatch.setattr(subprocess, "run", instead)


@pytest.fixture
def checkpoint(request, tmp_path):
    """A random model's folder behind an options file that names its template."""
    kind, name = CASES[request.param]
    tokenizer = tokenizer_of(kind)
    model = build_model(request.param, len(tokenizer), n_layers=2)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "own.json").write_text(json.dumps(OWN))
    (tmp_path / DATA).write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return SimpleNamespace(
        arch=request.param, ref=options_file(tmp_path, "model", name), template=name, folder=tmp_path
    )


def options_file(folder, model, template):
    file = folder / f"{model}.toml"
    file.write_text(f"model = {json.dumps(model)}\ntemplate = {json.dumps(template)}\n")
    return str(file)


def trained(checkpoint):
    """The options file of a checkpoint that went on from this one for a step."""
    small = {"task": TASK, "data": DATA, "steps": 1, "batch": 2, "pool": 4, "branches": 1, "evaluate": 0}
    out = train(Train(init=checkpoint.ref, out=checkpoint.folder / "trained", **small))
    card, began = json.loads((out / CARD).read_text()), load(checkpoint.ref)
    assert card["template"] == began.template.name and card["trained_tokens"] > 0
    ref = options_file(checkpoint.folder, "trained", checkpoint.template)
    assert load(ref).fingerprint != began.fingerprint and load(ref).template == began.template
    return ref


@pytest.mark.parametrize("checkpoint", CASES, indirect=True)
def test_the_whole_path(checkpoint, quiet, monkeypatch):
    monkeypatch.chdir(checkpoint.folder)
    ref = trained(checkpoint)
    doctored(ref)

    saved = checkpoint.folder / "vector.safetensors"
    vector = extract(Extract(ref, TASK, DATA, contrast="annotated", pairs=6, validation=4, out=saved))
    assert set(vector.directions) == {0, 1} and vector.template == load(ref).template.name

    # a model after one step copies nothing, so the scan's labels are the annotator's
    monkeypatch.setattr(measure, "as_corrected", lambda lm, task, pairs: list(pairs))
    counts = {"tokens": 1, "pairs": 5, "items": 5, "neutral": 2, "shuffles": 100, "resamples": 100, "examples": 0}
    run = scan(Scan((ref,), TASK, DATA, **counts))
    assert (run / "DONE").is_file() and (run / "scan.jsonl").stat().st_size

    models = {"corrector": ref, "upstream": ref}
    small = {"items": 2, "problems": 0, "validation": 2, "controls": 1}
    run = sweep(Sweep(coef=(0.0, 2.0), task=(TASK,), data=DATA, vector=saved, layers=(0,), **models, **small))
    edits = [json.loads(line) for line in (run / "edits.jsonl").read_text().splitlines()]
    assert edits and all(row["applied"] > 0 for row in edits if row["coef"])

    answers = align(Align(TASK, DATA, problems=2, max_rounds=2, **models))
    assert len(answers) == 2 and answers[0]["outcomes"]


def doctored(ref):
    """The doctor finds nothing wrong but that the model copies nothing."""
    found = {row.check: row.status for row in examine(Doctor(ref, task=TASK, data=DATA, sentences=2))}
    assert "FAIL" not in found.values() and found["copying"] == "warn"
    assert {found[f"parity {name}"] for name in ("torch", "transformer_lens", "nnsight")} == {"ok"}
