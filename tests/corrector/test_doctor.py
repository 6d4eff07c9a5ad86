"""The doctor: a whole reference, planted faults, exit codes."""

import dataclasses
import json
import sys
from importlib.metadata import entry_points

import pytest
import torch

from corrector import checks, doctor, tasks
from corrector.checks import Row, Subject, copy_rows, decoder_rows, run_check, span_rows, template_rows, text_rows
from corrector.doctor import Doctor, examine, good_pairs, run
from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel
from corrector.prompts import Template, template
from probes import checks as upper
from tests.conftest import build_model
from tests.corrector.real_tokenizers import tokenizer_of

DIALOGUE = tasks.get("dialogue")
PAIRS = good_pairs(DIALOGUE, 3, 0)


def real(kind, name, arch="llama"):
    """A random model with a real kind of tokenizer."""
    tokenizer = tokenizer_of(kind)
    model = build_model(arch, len(tokenizer), n_layers=2)
    return LanguageModel(model, tokenizer, template(name, tokenizer), f"random-{arch}")


def subject(lm):
    return Subject(lm, DIALOGUE, PAIRS)


def statuses(rows):
    return {row.check: row.status for row in rows}


@pytest.fixture(scope="module")
def reference():
    return examine(Doctor("dialogue", sentences=10))


def test_a_shipped_reference_is_well(reference):
    assert {row.status for row in reference} == {"ok"}
    found = {row.check: row.found for row in reference}
    assert found["copying"].startswith("10 of 10 good sentences of dialogue copied, 10 of 10")
    assert found["hooks"].startswith("30 of 30 fired (5 of 5 sites, 6 layers), 0 left")
    assert found["memory"].startswith("estimate: weights 4.7 MiB (1,243,520 parameters)")
    assert {"loads", "template", "spans", "text", "prefix growth", "decoder"} <= found.keys()
    assert {f"parity {name}" for name in ("torch", "transformer_lens", "nnsight")} <= found.keys()


def test_the_floors_above_announce_their_checks():
    names = {entry.name: entry.value for entry in entry_points(group=doctor.GROUP)}
    assert names == {"backends": "probes.checks:backend_rows", "hooks": "probes.checks:hook_rows"}


def test_without_them_the_table_says_so(monkeypatch):
    monkeypatch.setattr(doctor, "entry_points", lambda group: ())
    rows = examine(Doctor("arithmetic-s", sentences=2))
    assert statuses(rows)["backends"] == "skip" and "loads" in statuses(rows)


def test_a_task_that_needs_data_is_replaced_and_said(monkeypatch):
    monkeypatch.delenv("CORRECTOR_LAB_DATA", raising=False)  # else the data are there
    monkeypatch.setattr(doctor, "entry_points", lambda group: ())
    rows = examine(Doctor("gsm8k", sentences=2))
    row = next(row for row in rows if row.check == "task")
    assert row.status == "warn" and row.cure == "--task gsm8k --data FOLDER"
    with pytest.raises(UserError):
        examine(Doctor("gsm8k", task="gsm8k"))


# Planted faults


def test_a_second_begin_token_fails():
    lm = real("llama3", "plain")
    assert statuses(template_rows(subject(lm))) == {"template": "warn"}  # its chat template is not used
    twice = Template("x", "<|begin_of_text|><|begin_of_text|>{question}{prefix}{last}", "{question}{prefix}")
    rows = template_rows(subject(dataclasses.replace(lm, template=twice)))
    assert [row.status for row in rows] == ["FAIL"] and "stands 2 times" in rows[0].found


def test_what_a_template_lacks_is_warned_of():
    assert [r.status for r in template_rows(subject(real("qwen", "chat")))] == ["ok"]
    whole = template_rows(subject(real("gpt2", "aligner")))
    assert whole[-1].status == "warn" and "whole answers" in whole[-1].found
    chatty = template_rows(subject(real("qwen", "plain")))
    assert chatty[-1].status == "warn" and "--template chat" in chatty[-1].cure
    lm = real("qwen", "chat")
    dated = dataclasses.replace(lm.template.turn, head="<|today|>" + lm.template.turn.head)
    cut = template_rows(subject(dataclasses.replace(lm, template=dataclasses.replace(lm.template, turn=dated))))
    assert cut[-1].status == "warn" and "<|today|>" in cut[-1].found


def test_a_lossy_tokenizer_fails():
    rows = text_rows(subject(real("wordpiece", "plain")))
    assert rows[0].status == "FAIL" and rows[0].found.startswith("3 of 3 come back changed")
    assert "lossless" in rows[0].cure


def test_spans_at_the_wrong_place_fail(monkeypatch):
    lm = real("qwen", "chat")
    assert [r.status for r in span_rows(subject(lm))] == ["ok"]
    honest = checks.encode

    def shifted(tokenizer, prompt):
        out = honest(tokenizer, prompt)
        return dataclasses.replace(out, spans={**out.spans, "last": tuple(i + 1 for i in out.spans["last"])})

    monkeypatch.setattr(checks, "encode", shifted)
    rows = span_rows(subject(lm))
    assert rows[0].status == "FAIL" and "3 of 9 fields" in rows[0].found and "(last)" in rows[0].found


def test_a_decoder_that_differs_fails(monkeypatch):
    lm = real("gemma", "stream-aligner/gemma", "gemma2")
    kept = lm.model.generation_config
    assert [r.status for r in decoder_rows(subject(lm))] == ["ok"] and lm.model.generation_config is kept
    kept.repetition_penalty = 5.0  # a checkpoint's own settings are not what greedy is compared with
    assert [r.status for r in decoder_rows(subject(lm))] == ["ok"]
    monkeypatch.setattr(checks, "generated", lambda *_: (1, 2))
    assert decoder_rows(subject(lm))[-1].status == "FAIL"
    half = dataclasses.replace(lm, model=lm.model.to(torch.bfloat16))
    assert decoder_rows(subject(half))[-1].status == "warn"


def test_a_model_that_does_not_copy_is_warned_of():
    row = copy_rows(subject(real("gpt2", "plain", "gpt2")))[0]
    assert row.status == "warn" and row.found.startswith("0 of 3 good sentences of dialogue copied")


def test_a_backend_that_differs_fails_and_one_that_cannot_is_skipped(monkeypatch):
    lm = real("gpt2", "plain", "gpt_neox")
    assert set(statuses(upper.backend_rows(subject(lm))).values()) == {"ok"}
    monkeypatch.setitem(upper.LOGITS_OF, "nnsight", lambda lm, batch: lm.model(**batch.inputs()).logits * 1.1)

    def refuse(lm, batch):
        raise LookupError("no adapter for this architecture")

    monkeypatch.setitem(upper.LOGITS_OF, "transformer_lens", refuse)
    found = upper.backend_rows(subject(lm))
    assert statuses(found) == {"parity torch": "ok", "parity transformer_lens": "skip", "parity nnsight": "FAIL"}
    assert "no adapter for this architecture" in found[1].found


def test_a_hook_that_does_not_fire_fails(monkeypatch):
    lm = real("gpt2", "plain", "gpt2")
    assert upper.hook_rows(subject(lm)) == [Row("hooks", "ok", "10 of 10 fired (5 of 5 sites, 2 layers), 0 left")]
    monkeypatch.setattr(upper, "hooked", lambda lm, batch, wanted, visit: [visit(*w, None) for w in wanted[:-1]])
    row = upper.hook_rows(subject(lm))[0]
    assert row.status == "FAIL" and row.found.startswith("9 of 10 fired")


def test_an_error_inside_a_check_is_a_row_of_its_own(make_lm):
    def broken(_):
        raise ZeroDivisionError("by zero")

    def refused(_):
        raise UserError("give another")

    any_model = subject(make_lm(n_layers=1))
    assert run_check("x", broken, any_model)[0].found == "ZeroDivisionError: by zero"
    assert run_check("x", refused, any_model) == [Row("x", "FAIL", "give another")]


def test_a_model_that_cannot_fit_is_not_loaded(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "free", lambda device: 1000)
    monkeypatch.setattr(doctor, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(SystemExit) as error:
        run(Doctor("arithmetic-s"))
    assert error.value.code == 1 and "FAIL" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "free", lambda device: 10_000_000)
    assert doctor.memory_row(Doctor("arithmetic-s")).status == "warn"
    assert doctor.memory_row(Doctor("arithmetic-s", batch=1, length=8)).status == "ok"


# Exit codes


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["doctor", *words])
    with pytest.raises(SystemExit) as error:
        run_cli(Doctor, run, "corrector.doctor")
        raise SystemExit(0)
    return error.value.code


def test_exit_codes(monkeypatch, capsys, tmp_path):
    rows = [Row("x", "ok", "fine [not markup]"), Row("y", "warn", "so so", "cure")]
    monkeypatch.setattr(doctor, "examine", lambda config: rows)
    assert command(monkeypatch, "--corrector", "x") == 0
    assert "fine [not markup]" in capsys.readouterr().out
    rows.append(Row("z", "FAIL", "bad"))
    assert command(monkeypatch, "--corrector", "x") == 1
    monkeypatch.undo()
    assert command(monkeypatch, "--corrector", "./nowhere") == 2
    assert "is no folder here" in capsys.readouterr().err
    assert command(monkeypatch, "--corrector", "arithmetic-s", "--sentences", "0") == 2
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "none-such"}))
    assert command(monkeypatch, "--corrector", str(tmp_path)) == 2
    assert "cannot be loaded" in capsys.readouterr().err


def test_too_few_good_sentences_are_refused(monkeypatch):
    monkeypatch.setattr(type(DIALOGUE), "size", lambda self, split: 5)
    with pytest.raises(UserError, match="sentences to copy among 5; choose --sentences fewer"):
        good_pairs(DIALOGUE, 10, 0)
