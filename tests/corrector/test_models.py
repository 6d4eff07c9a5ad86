import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from corrector import models
from corrector.errors import UserError
from corrector.models import CARD, blocks, head_logits, load, references
from corrector.prompts import TEMPLATES


@pytest.fixture(scope="module")
def saved(tiny_lm, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_lm.model.save_pretrained(folder)
    tiny_lm.tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(json.dumps({"template": "lab", "note": "a test"}))
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(saved, tmp_path / "tiny")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(models, "_hub_answers", lambda: False)


# Loading


def test_a_saved_model_loads_as_it_was(saved, tiny_lm):
    lm = load(saved)
    assert lm.template == TEMPLATES["lab"] and lm.card["note"] == "a test" and lm.ref == str(saved)
    assert not lm.model.training and lm.device.type == "cpu" and lm.n_layers == 4
    for name, w in tiny_lm.model.state_dict().items():
        assert torch.equal(lm.model.state_dict()[name], w), name
    assert lm.encode("Tom has", "", "Ann eats") == tiny_lm.encode("Tom has", "", "Ann eats")


def test_every_architecture_loads_whole(arch_lm, tmp_path):
    """Also those with tied weights, which a checkpoint leaves out."""
    arch_lm.model.save_pretrained(tmp_path)
    arch_lm.tokenizer.save_pretrained(tmp_path)
    lm = load(tmp_path)
    ids = torch.tensor([arch_lm.encode("Tom has", "", "Ann eats").ids])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, arch_lm.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_template_is_the_cards_unless_another_is_chosen(copy):
    assert load(copy, "plain").template.name == "plain"
    (copy / CARD).unlink()
    assert load(copy).template.name == "plain" and load(copy).card == {}
    with pytest.raises(UserError, match="template='lob' is not one of"):
        load(copy, "lob")


def test_weights_take_the_dtype_asked_for(saved):
    assert next(load(saved).model.parameters()).dtype == torch.float32
    assert next(load(saved, dtype="bfloat16").model.parameters()).dtype == torch.bfloat16
    with pytest.raises(UserError, match="dtype='float12' is not one of float32"):
        load(saved, dtype="float12")


def test_a_shipped_reference_goes_by_its_name_and_its_alias(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "REFERENCES", tmp_path)
    for name in ("dialogue-0", "arithmetic-l"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "no-card").mkdir()
    assert references() == ["arithmetic-l", "dialogue-0"]
    assert load("dialogue").fingerprint == load("dialogue-0").fingerprint
    assert load("dialogue").ref == "dialogue" and load("arithmetic").card["note"] == "a test"


def test_shipped_references_are_whole():
    for name in references():
        assert load(name).card["template"] in TEMPLATES


# What cannot be loaded


def test_an_unknown_name_is_refused_at_once(offline):
    for ref in ("no-such-model", "org/no-such-model"):
        began = time.monotonic()
        with pytest.raises(UserError, match=f"{ref}.* cannot be loaded .*; give one of") as error:
            load(ref)
        assert time.monotonic() - began < 5, "the hub's retries ran"
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("ref", ["./nowhere", "/no/where/at/all", "a/b/c", "~/nowhere-at-all", "two words"])
def test_a_missing_folder_never_reaches_the_hub(ref, monkeypatch):
    monkeypatch.setattr(models, "_hub_answers", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(UserError, match="is no folder here and cannot be a hub id"):
        load(ref)


def test_a_cached_hub_model_loads_without_network(saved, offline, tmp_path, monkeypatch):
    """The hub's own cache layout; the fallback is that of a machine that lost its network."""
    cache, commit = tmp_path / "models--org--tiny", "0" * 40
    shutil.copytree(saved, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    for module in (huggingface_hub.constants, __import__("transformers.utils.hub", fromlist=["hub"])):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    assert load("org/tiny", "lab").fingerprint == load(saved).fingerprint


def test_a_hub_that_does_not_answer_is_noticed_soon(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    assert not models._hub_answers()
    assert time.monotonic() - began < 5
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked though offline"))
    assert not models._hub_answers()


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(UserError, match=r"without config\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", None),
        ("model.safetensors", b"\0" * 64),
        ("config.json", b"{"),
        ("config.json", b"{}"),
        (CARD, b"{"),
    ],
)
def test_a_broken_checkpoint_is_a_users_mistake(copy, file, content):
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load(copy)
    assert "\n" not in str(error.value)


def test_a_missing_weight_is_never_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    lost = "model.layers.2.mlp.up_proj.weight"
    save_file({k: w for k, w in weights.items() if k != lost}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"lacks 1 weights, {lost} first"):
        load(copy)


def test_pickled_weights_are_not_read(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        load(copy)


def test_no_code_of_a_checkpoint_runs(copy):
    config = json.loads((copy / "config.json").read_text())
    ran = copy / "ran"
    (copy / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Own: pass\n")
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="cannot be loaded"):
        load(copy)
    assert not ran.exists()


# The model


def test_blocks_are_found_in_every_architecture(arch_lm):
    found = blocks(arch_lm.model)
    assert len(found) == arch_lm.n_layers == 4
    inside = {id(p) for block in found for p in block.parameters()}
    outside = [name for name, p in arch_lm.model.named_parameters() if id(p) not in inside]
    assert len(outside) <= 5, "norms and embeddings alone are outside of the blocks"


def test_the_heads_logits_are_the_models(arch_lm):
    ids = torch.tensor([arch_lm.encode("Tom has", "", "Ann eats").ids])
    with torch.no_grad():
        h = arch_lm.model.base_model(ids).last_hidden_state
        torch.testing.assert_close(head_logits(arch_lm.model, h), arch_lm.model(ids).logits)
    assert arch_lm.ref != "random-gemma2" or arch_lm.model.config.final_logit_softcapping


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UserError, match=r"architecture Linear .* Llama-"):
        blocks(nn.Linear(2, 2))


def test_the_fingerprint_follows_every_weight_and_word(saved):
    first = load(saved)
    assert first.fingerprint == load(saved).fingerprint and len(first.fingerprint) == 16
    changed = load(saved)
    w = changed.model.get_parameter("model.layers.3.mlp.down_proj.weight").data
    w[0, 0] += 1e-6
    nudged = changed.fingerprint
    swapped = load(saved)
    w = swapped.model.get_parameter("model.layers.3.mlp.down_proj.weight").data
    w[[0, 1]] = w[[1, 0]]  # the same sums
    worded = load(saved)
    worded.tokenizer.add_tokens(["zebra"])
    assert len({first.fingerprint, nudged, swapped.fingerprint, worded.fingerprint}) == 4
    assert load(saved, "plain").fingerprint == first.fingerprint


def test_a_target_is_the_correction_and_the_end(tiny_lm):
    ids = tiny_lm.encode_target("Tom has 3.")
    assert ids[-1] == tiny_lm.eos_id == tiny_lm.tokenizer.eos_token_id
    assert tiny_lm.tokenizer.decode(ids[:-1]) == "Tom has 3." == tiny_lm.decode(ids)
    plain = replace(tiny_lm, template=TEMPLATES["plain"])
    assert plain.tokenizer.decode(plain.encode_target("Tom has 3.")[:-1]) == " Tom has 3."
    assert tiny_lm.encode_target("") == [tiny_lm.eos_id]
    with pytest.raises(UserError, match="' zebra' is not in this model's vocabulary"):
        tiny_lm.encode_target("Tom has zebra.")


def test_decoding_drops_special_tokens_and_outer_space(tiny_lm):
    words = tiny_lm.tokenizer(" Tom has ", add_special_tokens=False)["input_ids"]
    assert tiny_lm.decode([*words, tiny_lm.eos_id, 0]) == "Tom has" and tiny_lm.decode([]) == ""


def test_prompts_are_the_templates(tiny_lm):
    encoded = tiny_lm.encode("Tom?", "Ann has", "Mia eats")
    assert tiny_lm.tokenizer.decode(list(encoded.ids)) == "<q>Tom?<p>Ann has<y1>Mia eats<y2>"
    assert tiny_lm.tokenizer.decode(list(tiny_lm.encode_upstream("Tom?", "Ann").ids)) == "<q>Tom?<p>Ann"


def test_a_tokenizer_without_an_end_token_is_refused(make_lm):
    lm = make_lm()
    lm.tokenizer.eos_token = None
    with pytest.raises(UserError, match="has no end token"):
        _ = lm.eos_id
