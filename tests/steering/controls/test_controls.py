import copy
import dataclasses
import itertools
import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from corrector import tasks
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import template
from corrector.training.tokenizers import bpe_tokenizer
from probes.capture import Activations
from probes.contrasts import INSTRUCTIONS
from steering.controls import (
    battery,
    full_battery,
    length_controls,
    load_battery,
    orthogonal_controls,
    other_layers,
    random_controls,
    shuffled_controls,
)
from steering.controls.drawn import seeded
from steering.interventions import Gate
from steering.sweeping.cells import Cell, Setting, correct, prompts_of, unsteered_tokens, with_kl
from steering.sweeping.grid import Grid
from steering.vectors import SteeringVector


@pytest.fixture
def vector():
    g = torch.Generator().manual_seed(3)
    directions = {k: (k + 1) * torch.randn(256, generator=g) for k in range(4)}
    return SteeringVector(directions, "diff_means", "resid_post", "prompt_last", "abc", "lab", "planted")


def test_controls_have_the_vectors_norm_at_every_layer(vector):
    controls = random_controls(vector, (1, 3), 5, seed=0)
    assert list(controls) == [f"random-{i:02d}" for i in range(5)]
    for control in controls.values():
        assert set(control) == {1, 3}
        for layer, v in control.items():
            assert v.shape == (256,) and v.dtype == torch.float32
            assert float(v.norm()) == pytest.approx(float(vector.at(layer).norm()), rel=1e-5)


def test_a_control_depends_on_no_other_control_and_no_order(vector):
    few, many = random_controls(vector, (1, 3), 2, seed=0), random_controls(vector, (3, 0, 1), 6, seed=0)
    torch.manual_seed(99)
    again = random_controls(vector, (1, 3), 2, seed=0)
    for name, layer in itertools.product(few, (1, 3)):
        assert torch.equal(few[name][layer], again[name][layer])
        assert torch.equal(few[name][layer], many[name][layer])


def test_seed_model_name_and_layer_each_change_the_draw(vector):
    base = random_controls(vector, (0, 1), 2, seed=0)
    other_model = dataclasses.replace(vector, fingerprint="abd")
    drawn = [
        base["random-00"][0],
        base["random-00"][1],
        base["random-01"][0],
        random_controls(vector, (0,), 1, seed=1)["random-00"][0],
        random_controls(other_model, (0,), 1, seed=0)["random-00"][0],
    ]
    for a, b in itertools.combinations(drawn, 2):
        assert abs(float(torch.cosine_similarity(a, b, dim=0))) < 0.3


def test_controls_are_nearly_orthogonal_on_average(vector):
    controls = random_controls(vector, (2,), 40, seed=0)
    u = torch.stack([c[2] for c in controls.values()])
    u = u / u.norm(dim=-1, keepdim=True)
    to_vector = u @ (vector.at(2) / vector.at(2).norm())
    among = (u @ u.T)[torch.triu_indices(40, 40, 1).unbind()]
    for cosines in (to_vector, among):
        # the cosine of isotropic directions in d dimensions has mean 0 and standard deviation 1/sqrt(d) = 0.0625
        assert abs(float(cosines.mean())) < 0.04
        assert 0.045 < float(cosines.std()) < 0.08


def planted(signal, n=400, d=64, seed=0, length_axis=False):
    """Pairs of classes `signal` apart on axis 0; where asked, axis 1 carries the item's own length."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(10, 60, (2 * n,), generator=g)
    h = torch.randn(2 * n, d, generator=g)
    h[:n, 0] += signal
    if length_axis:
        h[:, 1] += 0.2 * (lengths - 35)
    ids = tuple(f"p{i}" for i in range(n))
    pos, neg = (Activations(part[:, None], (2,), "resid_post", "prompt_last", ids) for part in (h[:n], h[n:]))
    v = SteeringVector(
        {2: h[:n].mean(0) - h[n:].mean(0)}, "diff_means", "resid_post", "prompt_last", "abc", "lab", "planted"
    )
    return v, pos, neg, lengths.tolist()


def cosine(a, b):
    return float(torch.cosine_similarity(a, b, dim=0))


def test_orthogonal_controls_are_orthogonal_of_equal_norm_and_of_no_order(vector):
    few, many = orthogonal_controls(vector, (1, 3), 2, seed=0), orthogonal_controls(vector, (3, 1), 5, seed=0)
    assert list(many) == [f"orthogonal-{i:02d}" for i in range(5)]
    for name, layer in itertools.product(few, (1, 3)):
        assert torch.equal(few[name][layer], many[name][layer])
    for control, layer in itertools.product(many.values(), (1, 3)):
        assert abs(cosine(control[layer], vector.at(layer))) < 1e-6
        assert float(control[layer].norm()) == pytest.approx(float(vector.at(layer).norm()), rel=1e-5)
    assert abs(cosine(many["orthogonal-00"][1], many["orthogonal-01"][1])) < 0.3


def test_the_wrong_layer_is_the_farthest_but_the_last(vector):
    # six blocks, of which the last is never a candidate; the fixture's vector has layers 0 to 3
    found = other_layers(vector, (1,), 6)
    assert list(found["wrong-layer"]) == [4] and torch.equal(found["wrong-layer"][4], vector.at(1))
    assert "other-layer" not in found
    found = other_layers(vector, (3,), 6)
    assert list(found["wrong-layer"]) == [0] and list(found["other-layer"]) == [3]
    other = found["other-layer"][3]
    assert cosine(other, vector.at(0)) == pytest.approx(1.0)
    assert float(other.norm()) == pytest.approx(float(vector.at(3).norm()), rel=1e-5)
    assert list(other_layers(vector, (2,), 6)["wrong-layer"]) == [0]  # of two as far the lower


def test_several_layers_pass_their_vectors_on_and_one_layer_alone_has_no_other(vector):
    (moved,) = other_layers(vector, (0, 2, 3), 5).values()
    assert list(moved) == [0, 2, 3]
    assert all(torch.equal(moved[to], vector.at(of)) for to, of in ((2, 0), (3, 2), (0, 3)))
    with pytest.raises(UserError, match="none but the last is left beside layer 0"):
        other_layers(vector, (0,), 2)


def test_shuffled_fits_are_chance_without_a_signal_and_the_vector_with_a_strong_one():
    for signal, expected in ((0.0, False), (400.0, True)):
        v, pos, neg, _ = planted(signal)
        controls = shuffled_controls(v, pos, neg, (2,), 6, seed=0)
        assert list(controls) == [f"shuffled-{i:02d}" for i in range(6)]
        cosines = [abs(cosine(c[2], v.at(2))) for c in controls.values()]
        assert min(cosines) > 0.8 if expected else max(cosines) < 0.5, cosines
        for c in controls.values():
            assert float(c[2].norm()) == pytest.approx(float(v.at(2).norm()), rel=1e-4)
    again = shuffled_controls(v, pos, neg, (2,), 2, seed=0)
    assert torch.equal(again["shuffled-01"][2], controls["shuffled-01"][2])
    other_seed = shuffled_controls(v, pos, neg, (2,), 1, seed=1)["shuffled-00"][2]
    assert not torch.equal(other_seed, controls["shuffled-00"][2])


def test_a_shuffle_is_the_methods_own_fit_on_turned_pairs():
    """Oracle: the mean of the differences with the signs of the coins, by hand."""
    v, pos, neg, _ = planted(1.0, n=50)
    coins = torch.rand(50, generator=seeded(0, "abc", "shuffled-00", "labels")) < 0.5
    by_hand = ((pos.at(2) - neg.at(2)) * torch.where(coins, -1.0, 1.0)[:, None]).mean(0)
    assert cosine(shuffled_controls(v, pos, neg, (2,), 1, 0)["shuffled-00"][2], by_hand) == pytest.approx(1.0)


def test_the_length_direction_is_found_and_taken_out_of_the_vector():
    v, pos, neg, lengths = planted(3.0, length_axis=True)
    mixed = dataclasses.replace(v, directions={2: v.at(2) + 2 * torch.eye(64)[1]})
    found = length_controls(mixed, pos, neg, lengths, (2,))
    length, rest = found["length"][2], found["without-length"][2]
    assert abs(cosine(length, torch.eye(64)[1])) > 0.95
    assert float(length.norm()) == pytest.approx(float(mixed.at(2).norm()), rel=1e-5)
    assert abs(cosine(rest, length)) < 1e-5 and cosine(rest, torch.eye(64)[0]) > 0.9
    assert float(rest.norm()) < float(mixed.at(2).norm())  # what is left keeps its units
    with pytest.raises(UserError, match="of one length"):
        length_controls(mixed, pos, neg, [7] * len(lengths), (2,))


def test_the_battery_has_what_can_be_made_says_what_is_absent_and_survives_the_disk(
    dialogue_lm, dialogue_vector, tmp_path, monkeypatch
):
    monkeypatch.setattr(battery, "RANDOM", 3)
    monkeypatch.setattr(battery, "ORTHOGONAL", 2)
    monkeypatch.setattr(battery, "SHUFFLED", 2)
    task = tasks.get("dialogue")
    arguments = (dialogue_lm, task, dialogue_vector, (0, 1), task.pairs("test", 3))
    # a random model copies nothing, so the contrast by its own behaviour cannot be made, that of minimal pairs can
    poor = full_battery(*arguments, "copy_rewrite", 4, 0)
    assert set(poor.absent) == {"shuffled", "length", "without-length", "prompt-rewrite"}
    # the lexicon has the words of one instruction only
    assert "' new' is not in this model's vocabulary" in poor.absent["prompt-rewrite"]
    assert poor.prompts == {"prompt-copy": INSTRUCTIONS[1]}
    rich = full_battery(*arguments, "minimal", 6, 0)
    names = ["random-00", "random-01", "random-02", "orthogonal-00", "orthogonal-01", "shuffled-00", "shuffled-01"]
    assert list(rich.directions)[:7] == names and "wrong-layer" in rich.directions
    rich.save(tmp_path / "c.safetensors")
    record = json.loads(json.dumps(rich.record(dialogue_vector)))
    assert abs(record["directions"]["orthogonal-00"]["cosine"]) < 1e-6
    again = load_battery(tmp_path / "c.safetensors", record)
    assert list(again.directions) == list(rich.directions) and again.absent == rich.absent
    assert again.prompts == rich.prompts
    for name, by_layer in rich.directions.items():
        assert list(again.directions[name]) == list(by_layer)
        assert all(torch.equal(again.directions[name][k], v) for k, v in by_layer.items())


def deeper(model):
    """A model of two blocks with its second block once more, so that a layer but the last is left beside layer 1."""
    model = copy.deepcopy(model)
    model.model.layers.append(copy.deepcopy(model.model.layers[1]))
    model.model.layers[2].self_attn.layer_idx = 2
    model.config.num_hidden_layers = 3
    return model


def test_a_control_written_before_the_gate_can_be_read_is_absent_with_the_reason(
    dialogue_lm, dialogue_vector, monkeypatch
):
    for name in ("RANDOM", "ORTHOGONAL", "SHUFFLED"):
        monkeypatch.setattr(battery, name, 1)
    lm = LanguageModel(deeper(dialogue_lm.model), dialogue_lm.tokenizer, dialogue_lm.template, dialogue_lm.ref)
    task = tasks.get("dialogue")
    arguments = (lm, task, dialogue_vector, (1,), task.pairs("test", 2), "copy_rewrite", 4, 0)
    free = full_battery(*arguments)
    assert list(free.directions["wrong-layer"]) == [0]
    gated = full_battery(*arguments, gate=Gate(dialogue_vector.at(1), 1, 0.5))
    assert set(free.directions) - set(gated.directions) == {"wrong-layer"}
    assert gated.absent["wrong-layer"] == "written at layer 0, before the gate at layer 1"
    early = full_battery(*arguments, gate=Gate(dialogue_vector.at(0), 0, 0.5))
    assert set(early.directions) == set(free.directions) and early.absent == free.absent


@pytest.fixture(scope="module")
def bytes_lm():
    """A tiny random model over bytes, to which no word is unknown, and writes a few tokens only."""
    texts = [t for p in tasks.get("dialogue").pairs("train", 20) for t in (p.question, p.last, p.correction)]
    tokenizer = bpe_tokenizer(texts, 400)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes, **ids)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return LanguageModel(model, tokenizer, template("lab"), "random")


def test_a_model_over_bytes_has_both_prompt_baselines(bytes_lm, monkeypatch):
    """Words are unknown to the word tokenizers of the embedded references; a BPE corrector reads any prompt."""
    for name in ("RANDOM", "ORTHOGONAL", "SHUFFLED"):
        monkeypatch.setattr(battery, name, 1)
    task = tasks.get("dialogue")
    monkeypatch.setattr(type(task), "max_sentence_tokens", 12)
    pairs = task.pairs("test", 6)
    g = torch.Generator().manual_seed(1)
    directions = {k: torch.randn(32, generator=g) for k in (0, 1)}
    vector = SteeringVector(directions, "diff_means", "resid_post", "prompt_last", bytes_lm.fingerprint, "lab", "x")
    found = full_battery(bytes_lm, task, vector, (0,), pairs, "minimal", 4, 0)
    assert found.prompts == {"prompt-copy": INSTRUCTIONS[1], "prompt-rewrite": INSTRUCTIONS[0]}
    assert not {"prompt-copy", "prompt-rewrite"} & set(found.absent)
    setting = Setting((0,), "prompt_last")
    grid = Grid(vector, setting, (0.0, 1.0), found)
    cells = [cell for cell in grid.controls() if cell.instruction]
    assert [(c.direction, c.coef, c.vector) for c in cells] == [
        ("prompt-copy", 0.0, None),
        ("prompt-rewrite", 0.0, None),
    ]
    unsteered = unsteered_tokens(bytes_lm, task, pairs)
    plain = correct(bytes_lm, task, pairs, Cell("none", 0.0), setting)
    written = {"none": [row["correction"] for row in plain]}
    for cell in cells:
        rows = correct(bytes_lm, task, pairs, cell, setting)
        rows = with_kl(bytes_lm, pairs, rows, unsteered, cell, setting)
        # its divergence would be between two prompts, and nothing is written into the model
        assert {(row["kl"], row["dose"], row["applied"]) for row in rows} == {(None, None, 0)}
        assert [row["question"] for row in rows] == [pair.question for pair in pairs]
        written[cell.direction] = [row["correction"] for row in rows]
        longer = prompts_of(bytes_lm, pairs, cell.instruction)
        assert all(len(a) > len(b) for a, b in zip(longer, prompts_of(bytes_lm, pairs), strict=True))
    assert len({tuple(texts) for texts in written.values()}) == 3
