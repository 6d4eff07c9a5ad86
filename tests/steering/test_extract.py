import dataclasses
import json
import math
import sys

import pytest
import torch

from corrector import tasks
from corrector.errors import UserError, run_cli
from corrector.tasks.base import Pair
from probes.contrasts import contrast_pairs, copy_rewrite
from steering.extract import Extract, extract_vectors, main, with_standard
from steering.vectors import SteeringVector


def contrast(numbers):
    pairs = []
    for i in numbers:
        good = Pair(f"p{i}", f"Tom has {i} pens", "", f"he has {i} pens", f"he has {i} pens")
        pairs += [good, dataclasses.replace(good, last=f"he has {i + 1} pens")]
    return copy_rewrite(pairs)


def test_extract_vectors_reads_every_method_and_span_of_held_out_questions(tiny_lm):
    train, validation = contrast(range(10, 30)), contrast(range(40, 50))
    spans = ("prompt_last", "last", "output[0:4]")
    got = extract_vectors(tiny_lm, train, validation, spans=spans, n_resamples=50)
    assert set(got) == {(m, s) for m in ("diff_means", "lat") for s in spans}
    v = got["diff_means", "last"]
    v.check(tiny_lm)
    assert v.layers == (0, 1, 2, 3) and v.card["n"] == 20 and v.card["n_validation"] == 10
    for k, row in v.card["layers"].items():
        assert row["low"] <= row["auroc"] <= row["high"]
        assert math.isclose(row["dose"], float(v.at(int(k)).norm()) / row["mean_norm"], rel_tol=1e-5)
    cosine = torch.cosine_similarity(v.at(2), got["lat", "last"].at(2), dim=0)
    assert math.isclose(v.card["cosine"]["lat"]["2"], float(cosine), abs_tol=1e-5)
    again = extract_vectors(tiny_lm, train, validation, spans=spans[1:2], n_resamples=50)["diff_means", "last"]
    torch.testing.assert_close(again.at(3), v.at(3), atol=2e-5, rtol=0)
    for k, row in v.card["layers"].items():
        assert again.card["layers"][k] == pytest.approx(row, rel=1e-4)


def test_another_method_and_backend_give_a_vector_with_its_cosines(tiny_lm):
    train, validation = contrast(range(10, 30)), contrast(range(40, 50))
    found = extract_vectors(tiny_lm, train, validation, with_standard("rda"), n_resamples=20)
    assert set(found["rda", "prompt_last"].card["cosine"]) == {"diff_means", "lat"}
    other = extract_vectors(tiny_lm, train, validation, ("diff_means",), n_resamples=20, backend="transformer_lens")
    for k in range(4):
        torch.testing.assert_close(
            other["diff_means", "prompt_last"].at(k), found["diff_means", "prompt_last"].at(k), atol=5e-5, rtol=0
        )
    assert other["diff_means", "prompt_last"].card["backend"] == "transformer_lens"


def test_extract_vectors_refuses_leaked_questions(tiny_lm):
    with pytest.raises(UserError, match="share the question"):
        extract_vectors(tiny_lm, contrast(range(10, 20)), contrast(range(19, 25)))


@pytest.fixture
def folder(make_lm, tmp_path):
    """A saved tiny corrector that knows the words of the pairs that `--pairs 6 --validation 4` draws."""
    task = tasks.get("arithmetic")
    pairs = contrast_pairs(task, "train", 6) + contrast_pairs(task, "validation", 4)
    lm = make_lm("llama", texts=[t for p in pairs for t in (p.question, p.prefix, p.last, p.correction)])
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "card.json").write_text(json.dumps({"template": "lab"}))
    return tmp_path / "model"


def test_command_line_writes_a_vector_and_prints_every_layer(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "v.safetensors"
    words = f"--corrector {folder} --pairs 6 --validation 4 --contrast annotated --method lat --span last --out {out}"
    monkeypatch.setattr(sys, "argv", ["extract", *words.split()])
    run_cli(Extract, main, "steering.extract")
    v = SteeringVector.load(out)
    assert (v.method, v.span, v.template, v.card["task"], v.card["n"]) == ("lat", "last", "lab", "arithmetic", 6)
    printed = capsys.readouterr().out
    for layer in v.layers:
        row = v.card["layers"][str(layer)]
        assert f"{row['auroc']:.3f}" in printed and f"{row['dose']:.3f}" in printed


def test_a_users_mistake_is_one_line_and_exit_code_2(folder, tmp_path, monkeypatch, capsys):
    size = "--pairs 6 --validation 4 --contrast annotated"
    words = f"--corrector {folder} {size} --span outptu --out {tmp_path / 'v.safetensors'}"
    monkeypatch.setattr(sys, "argv", ["extract", *words.split()])
    with pytest.raises(SystemExit) as stop:
        run_cli(Extract, main, "steering.extract")
    error = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and "span='outptu' not among" in error[-1]
    assert not (tmp_path / "v.safetensors").exists()
