"""Revisions, options files, adapters, quantisation and what the hub refuses."""

import json
import shutil
import sys
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
import transformers
from huggingface_hub import errors

from corrector import models
from corrector.errors import UserError
from corrector.loading import adapters
from corrector.loading.options import LoadOptions, read_options, split_revision
from corrector.models import CARD, load, source_of


@pytest.fixture(scope="module")
def saved(tiny_lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("options") / "tiny"
    tiny_lm.model.save_pretrained(folder)
    tiny_lm.tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(json.dumps({"template": "lab"}))
    return folder


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(models, "_hub_answers", lambda: False)


def options_file(folder, name="model.toml", **fields):
    file = folder / name
    as_toml = "".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items())
    file.write_text(as_toml if name.endswith(".toml") else json.dumps(fields))
    return str(file)


def logits(lm):
    with torch.no_grad():
        return lm.model(torch.tensor([lm.encode("Tom has", "", "Ann eats").ids])).logits


# Names


def test_a_revision_stands_behind_the_at(tmp_path, monkeypatch):
    assert split_revision("org/model@abc") == ("org/model", "abc") and split_revision("org/model") == ("org/model", "")
    (tmp_path / "a@b").mkdir()
    assert split_revision(str(tmp_path / "a@b")) == (str(tmp_path / "a@b"), "")
    for ref in ("@abc", "org/model@"):
        with pytest.raises(UserError, match="write ID@REVISION"):
            split_revision(ref)


def test_a_revision_pins_a_hub_model(saved, make_lm, offline, tmp_path, monkeypatch):
    """The hub's own cache layout with two commits."""
    cache, commits = tmp_path / "models--org--tiny", {"old": "0" * 40, "main": "1" * 40}
    other = make_lm(seed=1)
    (cache / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        shutil.copytree(saved, cache / "snapshots" / commit)
        (cache / "refs" / name).write_text(commit)
    other.model.save_pretrained(cache / "snapshots" / commits["old"])
    for module in (huggingface_hub.constants, __import__("transformers.utils.hub", fromlist=["hub"])):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    main, old = load("org/tiny", "lab"), load("org/tiny@old", "lab")
    assert main.fingerprint == load(saved).fingerprint != old.fingerprint and old.ref == "org/tiny@old"
    assert load(f"org/tiny@{commits['old']}", "lab").fingerprint == old.fingerprint
    assert load(options_file(tmp_path, model="org/tiny", revision="old", template="lab")).fingerprint == old.fingerprint
    with pytest.raises(UserError, match="cannot be loaded"):
        load("org/tiny@nowhere", "lab")


def test_a_folder_has_no_revision(saved, tmp_path):
    with pytest.raises(UserError, match="is a folder here, which has no revision"):
        load(options_file(tmp_path, model=str(saved), revision="main"))


# Options files


@pytest.mark.parametrize("name", ["model.toml", "model.json"])
def test_an_options_file_says_how_to_load(saved, tmp_path, name):
    shutil.copytree(saved, tmp_path / "tiny")
    (tmp_path / "tiny" / CARD).unlink()
    lm = load(options_file(tmp_path, name, model="tiny", template="stream-aligner", attention="sdpa"))
    assert lm.template.name == "stream-aligner" and lm.model.config._attn_implementation == "sdpa"
    assert lm.fingerprint == load(saved).fingerprint and lm.ref.endswith(name)
    assert load(options_file(tmp_path, name, model="tiny", template="plain"), "lab").template.name == "lab"
    with pytest.raises(UserError, match="cannot be a hub id"):
        load(options_file(tmp_path, name, model="../nowhere"))


def test_options_in_python(saved):
    assert load(saved, options=LoadOptions(template="plain")).template.name == "plain"
    assert load(saved, options=LoadOptions(attention="eager")).model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "field 'model' is missing"),
        ({"model": "x", "quantise": "4bit"}, "field 'quantise' is not one of model, revision"),
        ({"model": "x", "merge": "yes"}, "field 'merge' is 'yes', not a bool"),
        ({"model": "x", "quantize": "2bit"}, r"model\.toml: quantize='2bit' is not one of 8bit, 4bit"),
        ({"model": "x", "attention": "flash"}, "attention='flash' is not one of eager, sdpa"),
    ],
)
def test_a_mistake_in_an_options_file_is_named(tmp_path, fields, said):
    with pytest.raises(UserError, match=said):
        read_options(options_file(tmp_path, **fields))


def test_a_missing_options_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.toml cannot be read"):
        load("nowhere.toml")


def test_code_of_a_checkpoint_runs_by_the_flag_alone(saved, tmp_path):
    assert source_of(saved).safe["trust_remote_code"] is False
    trusted = options_file(tmp_path, model=str(saved), trust_remote_code=True)
    assert source_of(trusted).safe["trust_remote_code"] is True


# Placement and precision


def test_libraries_that_are_missing_are_named(saved, monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    for fields, library in (({"quantize": "4bit"}, "bitsandbytes"), ({"device_map": "auto"}, "accelerate")):
        with pytest.raises(UserError, match=f"needs {library}; pip install {library}, or leave it out"):
            load(saved, options=LoadOptions(**fields))


def test_quantised_loading_asks_for_it(saved, monkeypatch):
    """What transformers is told; bitsandbytes itself needs its own library."""
    monkeypatch.setattr(models, "find_spec", lambda name: object())
    placed = models._placed(LoadOptions(quantize="4bit"), "cuda:1", "bfloat16")
    config = placed["quantization_config"]
    assert (
        config.load_in_4bit
        and config.bnb_4bit_compute_dtype == torch.bfloat16
        and placed["device_map"] == {"": "cuda:1"}
    )
    assert models._placed(LoadOptions(quantize="8bit", device_map="auto"), "cpu", "float16")["device_map"] == "auto"


def test_a_device_map_places_the_model(saved, monkeypatch):
    pytest.importorskip("accelerate")
    lm = load(saved, options=LoadOptions(device_map="auto"))
    assert torch.equal(logits(lm), logits(load(saved))) and lm.device.type == "cpu"
    moved = pytest.fail
    monkeypatch.setattr(type(lm.model), "to", lambda *_: moved("a spread model was moved"))
    load(saved, options=LoadOptions(device_map="auto"))


def test_a_tokenizer_without_padding_pads_with_its_end(make_lm, tmp_path):
    lm = make_lm()
    lm.tokenizer.pad_token = None
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path, "lab").tokenizer.pad_token == "<eos>"


def test_a_tokenizer_without_offsets_is_refused(saved, monkeypatch):
    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: slow)
    with pytest.raises(UserError, match="gives no offsets"):
        load(saved)


# What the hub refuses


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "GatedRepoError",
            "'org/model@v1' is gated: accept its licence at https://huggingface.co/org/model, then log in",
        ),
        ("RevisionNotFoundError", "has no revision 'v1' on the hub"),
        ("RepositoryNotFoundError", "is not on the hub, or private"),
    ],
)
def test_what_the_hub_refuses_is_explained(monkeypatch, kind, said):
    monkeypatch.setattr(models, "_hub_answers", lambda: True)
    known = getattr(errors, kind)
    cause = known.__new__(known)

    def refuse(*_, **__):
        raise OSError("You are trying to access something") from cause

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    for act in (lambda: load("org/model@v1"), lambda: models.config_of(source_of("org/model@v1"))):
        with pytest.raises(UserError, match=said.replace("'org/model@v1' ", "")) as error:
            act()
        assert "\n" not in str(error.value)


# Adapters


@pytest.fixture(scope="module")
def lora(saved, tmp_path_factory):
    """A random LoRA adapter of the saved model, with the model's folder as its base."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = peft.get_peft_model(load(saved).model, config)
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    made.peft_config["default"].base_model_name_or_path = str(saved)
    made.save_pretrained(folder)
    return folder


def test_an_adapter_is_merged_or_live(saved, lora, tmp_path):
    base, merged = logits(load(saved)), load(lora)
    assert merged.card == {} and load(lora, "lab").template.name == "lab"
    merged = load(lora, "lab")
    assert not torch.allclose(logits(merged), base, atol=0.1), "the adapter acts"
    live = load(options_file(tmp_path, model=str(saved), adapter=str(lora), merge=False))
    torch.testing.assert_close(logits(live), logits(merged), atol=1e-4, rtol=1e-4)
    assert live.n_layers == 4 and type(live.model) is type(merged.model)
    assert any("lora" in name for name, _ in live.model.named_modules())
    assert not any("lora" in name for name, _ in merged.model.named_modules())
    assert len({load(saved).fingerprint, live.fingerprint, merged.fingerprint}) == 3


def test_an_adapter_in_the_python_options(saved, lora):
    by_options = load(saved, options=LoadOptions(adapter=str(lora)))
    assert by_options.fingerprint == load(lora, "lab").fingerprint and by_options.template.name == "lab"


def test_adapters_that_cannot_be_had_are_refused(saved, lora, tmp_path, monkeypatch, make_lm, offline):
    pickled = shutil.copytree(lora, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors"):
        load(pickled, "lab")
    broken = shutil.copytree(lora, tmp_path / "broken")
    (broken / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load(broken)
    (broken / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    with pytest.raises(UserError, match="names no base model"):
        load(broken)
    gpt2 = make_lm("gpt2")
    gpt2.model.save_pretrained(tmp_path / "gpt2")
    gpt2.tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="does not fit the model"):
        load(tmp_path / "gpt2", "lab", options=LoadOptions(adapter=str(lora)))
    with pytest.raises(UserError, match="adapter 'org/none' cannot be had"):
        load(saved, options=LoadOptions(adapter="org/none"))


def test_without_peft_an_adapter_is_refused_in_one_line(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(saved)}))
    with pytest.raises(UserError, match=r"needs peft; pip install 'corrector-lab\[lora\]'"):
        load(tmp_path, "lab")
    assert adapters.is_adapter(tmp_path) and not adapters.is_adapter(saved)


def test_peft_is_imported_on_first_use_only(saved):
    before = "peft" in sys.modules
    load(saved)
    assert ("peft" in sys.modules) == before
