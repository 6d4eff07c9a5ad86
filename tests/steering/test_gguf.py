"""GGUF control vectors, read back with the gguf package and steered by an oracle of llama.cpp's graph."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter

from corrector.errors import UserError, run_cli
from corrector.models import blocks
from steering import gguf
from steering.interventions import steer
from steering.vectors import SteeringVector


@pytest.fixture
def vector(tiny_lm):
    g = torch.Generator().manual_seed(0)
    directions = {k: torch.randn(32, generator=g) for k in (3, 1)}
    whose = {"fingerprint": tiny_lm.fingerprint, "template": "lab", "ref": tiny_lm.ref}
    return SteeringVector(directions, "lat", "resid_post", "last", **whose, card={"n": 3, "note": "ümlaut"})


def foreign(path, directions, arch="controlvector", dtype=np.float32, **strings):
    """A control vector as repeng's export_gguf writes it."""
    writer = GGUFWriter(path, arch)
    for name, value in strings.items():
        writer.add_string(f"{arch}.{name}", value)
    writer.add_uint32(f"{arch}.layer_count", len(directions))
    for name, v in directions.items():
        writer.add_tensor(name, np.asarray(v, dtype=dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_llama_cpp_loads(path, d, n_layers):
    """Oracle: the buffer of common_control_vector_load_one, then what llama_adapter_cvec::apply hands to each block."""
    data = np.zeros(d * n_layers, dtype=np.float32)
    for tensor in GGUFReader(path).tensors:
        k = int(tensor.name.split(".")[1])
        data[d * (k - 1) : d * k] += tensor.data
    return {il: torch.from_numpy(data[d * (il - 1) : d * il].copy()) for il in range(1, n_layers)}


def test_the_file_is_a_control_vector_of_llama_cpp(vector, tmp_path):
    reader = GGUFReader(vector.to_gguf(tmp_path / "new" / "v.gguf", model_hint="qwen2"))
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "qwen2"
    assert reader.fields["controlvector.layer_count"].contents() == 2
    found = {t.name: t for t in reader.tensors}
    assert list(found) == ["direction.1", "direction.3"]
    for k in (1, 3):
        tensor = found[f"direction.{k}"]
        assert tensor.tensor_type.name == "F32" and tensor.shape.tolist() == [32]
        np.testing.assert_array_equal(tensor.data, vector.at(k).numpy())


def test_llama_cpp_adds_what_it_loads_where_this_lab_adds_the_vector(vector, tiny_lm, tmp_path):
    at_block = as_llama_cpp_loads(vector.to_gguf(tmp_path / "v.gguf"), 32, tiny_lm.n_layers)
    ids = torch.tensor([tiny_lm.encode("how many has Tom?", "", "Tom has 3 pens").ids])
    handles = [
        blocks(tiny_lm.model)[il].register_forward_hook(lambda module, args, h, v=v: h + v)
        for il, v in at_block.items()
    ]
    theirs = tiny_lm.model(ids).logits
    for handle in handles:
        handle.remove()
    with steer(tiny_lm.model, vector, 1.0, span="all"):
        ours = tiny_lm.model(ids).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert not torch.allclose(ours, tiny_lm.model(ids).logits, atol=1e-2)


def test_a_round_trip_gives_the_vector_back_and_the_same_bytes(vector, tiny_lm, make_lm, tmp_path):
    path = vector.to_gguf(tmp_path / "a.gguf")
    back = SteeringVector.from_gguf(path, tiny_lm)
    for f in dataclasses.fields(vector):
        if f.name != "directions":
            assert getattr(back, f.name) == getattr(vector, f.name)
    assert back.layers == (1, 3) and back.digest == vector.digest
    assert back.to_gguf(tmp_path / "b.gguf").read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match="fingerprint"):
        SteeringVector.from_gguf(path, make_lm("llama", seed=1))


def test_what_the_format_cannot_hold_is_refused_and_nothing_is_written(vector, tmp_path):
    zero = dataclasses.replace(vector, directions={0: vector.at(1), 1: vector.at(1)})
    with pytest.raises(UserError, match=r"layer 0 is not in llama\.cpp's format"):
        zero.to_gguf(tmp_path / "v.gguf")
    with pytest.raises(UserError, match="site='mlp_out'"):
        dataclasses.replace(vector, site="mlp_out").to_gguf(tmp_path / "v.gguf")
    assert not (tmp_path / "v.gguf").exists()
    assert GGUFReader(zero.only([1]).to_gguf(tmp_path / "v.gguf")).tensors[0].name == "direction.1"


def test_an_imported_vector_says_so_and_is_of_no_model_unless_one_is_named(tiny_lm, make_lm, tmp_path):
    v = np.arange(32)
    path = foreign(tmp_path / "r.gguf", {"direction.3": v, "direction.2": -v, "other": v}, model_hint="mistral")
    unknown = SteeringVector.from_gguf(path)
    assert unknown.layers == (2, 3) and unknown.at(2).tolist() == (-v).tolist() and unknown.span == "all"
    assert unknown.card["imported"] == {"file": "r.gguf", "model_hint": "mistral", "model": "unknown"}
    with pytest.raises(UserError, match="force"):
        unknown.check(tiny_lm)
    unknown.check(tiny_lm, force=True)
    with pytest.raises(UserError, match="unknown models share no space"):
        unknown + unknown
    named = SteeringVector.from_gguf(path, tiny_lm)
    named.check(tiny_lm)
    assert (named.ref, named.template) == (tiny_lm.ref, "lab") and "claimed" in named.card["imported"]["model"]
    with pytest.raises(UserError, match=r"layers 2, 3|layers 2\.\.3"):
        SteeringVector.from_gguf(path, make_lm("llama", n_layers=3))


def test_files_that_are_no_control_vector_are_refused(vector, tmp_path):
    v = np.ones(4)
    (tmp_path / "text.gguf").write_text("not a tensor in sight")
    whole = vector.to_gguf(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) - 100])
    for path, message in (
        (tmp_path / "absent.gguf", "is no file"),
        (tmp_path / "text.gguf", "no whole GGUF file"),
        (tmp_path / "cut.gguf", "no whole GGUF file"),
        (foreign(tmp_path / "model.gguf", {"direction.1": v}, arch="llama"), "architecture 'llama'"),
        (foreign(tmp_path / "zero.gguf", {"direction.0": v}), "numbered from 1"),
        (foreign(tmp_path / "name.gguf", {"direction.last": v}), "numbered from 1"),
        (foreign(tmp_path / "half.gguf", {"direction.1": v}, dtype=np.float16), "F16"),
        (foreign(tmp_path / "matrix.gguf", {"direction.1": np.ones((2, 4))}), r"shape \(4, 2\)"),
        (foreign(tmp_path / "bare.gguf", {"weight": v}), "no tensor direction"),
        (foreign(tmp_path / "nan.gguf", {"direction.1": v * np.nan}), "NaN"),
        (foreign(tmp_path / "mixed.gguf", {"direction.1": v, "direction.2": np.ones(5)}), "shape"),
    ):
        with pytest.raises(UserError, match=message):
            SteeringVector.from_gguf(path)


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["gguf", *map(str, words)])
    run_cli(gguf.Gguf, gguf.main, "steering.gguf")


def test_command_line_exports_and_imports(vector, dialogue_folder, dialogue_lm, tmp_path, monkeypatch, capsys):
    saved = vector.save(tmp_path / "v.safetensors")
    call(monkeypatch, "export", saved, tmp_path / "v.gguf", "--layers", 3, "--scale", 2, "--model-hint", "qwen2")
    (tensor,) = GGUFReader(tmp_path / "v.gguf").tensors
    assert tensor.name == "direction.3"
    np.testing.assert_array_equal(tensor.data, 2 * vector.at(3).numpy())
    call(monkeypatch, "import", tmp_path / "v.gguf", tmp_path / "back.safetensors")
    back = SteeringVector.load(tmp_path / "back.safetensors")
    assert back.fingerprint == vector.fingerprint and back.card["operation"] == "2 a"
    path = foreign(tmp_path / "r.gguf", {"direction.1": np.ones(32)}, model_hint="llama")
    call(monkeypatch, "import", path, tmp_path / "r.safetensors", "--corrector", dialogue_folder)
    SteeringVector.load(tmp_path / "r.safetensors").check(dialogue_lm)
    assert "wrote" in capsys.readouterr().out


def test_a_users_mistake_is_one_line_and_exit_code_2(vector, tmp_path, monkeypatch, capsys):
    saved = dataclasses.replace(vector, directions={0: vector.at(1)}).save(tmp_path / "v.safetensors")
    for words in (("export", saved, tmp_path / "v.gguf"), ("import", saved, tmp_path / "w.safetensors")):
        with pytest.raises(SystemExit) as stop:
            call(monkeypatch, *words)
        assert stop.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "w.safetensors").exists()
