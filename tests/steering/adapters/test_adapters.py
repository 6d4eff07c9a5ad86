"""TransformerLens and nnsight write the same tokens as torch hooks under the same edits; the model stays as it was."""

import copy

import pytest
import torch

from corrector.decoding import decode
from corrector.errors import UserError
from probes.backends import bridge
from probes.sites import SITES
from steering.adapters import generate_steered, steer_transformer_lens
from steering.adapters import generation as adapter_generation
from steering.interventions import Edit, Gate, compose, steer
from steering.interventions.positions import PHASES
from tests.steering.interventions.test_interventions import OPERATIONS, D, layered, make_prompts, make_vectors

LIBRARIES = ("transformer_lens", "nnsight")
NEW = 6


def gated():
    condition = make_vectors(3)[0, 0]
    row = Gate(condition, 0)
    token = Gate(condition, 1, when="token", site="z")
    return [Edit(layered(), 9.0, span="all", gate=row), Edit(layered(2), 2.0, [2], "rotate", "all", gate=token)]


@pytest.mark.parametrize("span", [*PHASES, "last+output[1:3]"])
def test_same_tokens_and_counts_in_every_phase(arch_lm, span):
    prompts = make_prompts(arch_lm)
    edits = [Edit(layered(), [30.0, -9.0, 0.0, 9.0, None, -30.0], span=span)]
    wanted = generate_steered(arch_lm, prompts, edits, max_new_tokens=NEW)
    assert wanted == decode(arch_lm, prompts, max_new_tokens=NEW, steering=compose(edits))
    plain = decode(arch_lm, prompts, max_new_tokens=NEW)
    assert sum(a.ids != b.ids for a, b in zip(wanted, plain, strict=True)) >= 2
    for name in LIBRARIES:
        got = generate_steered(arch_lm, prompts, edits, max_new_tokens=NEW, backend=name, batch_size=4)
        assert got == wanted, name


@pytest.mark.parametrize("name", LIBRARIES)
def test_without_a_cache_too(tiny_lm, name):
    for edits in ([Edit(layered(), 9.0, span="prompt_last+output[0:2]")], gated()):
        wanted = generate_steered(tiny_lm, make_prompts(tiny_lm), edits, max_new_tokens=NEW)
        options = {"max_new_tokens": NEW, "backend": name, "use_cache": False}
        assert generate_steered(tiny_lm, make_prompts(tiny_lm), edits, **options) == wanted


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_operator_site_head_and_gate(arch_lm, name):
    prompts = make_prompts(arch_lm, 3)
    lists = [[Edit(layered(), 1.5, operator=operator, span="all") for operator in OPERATIONS]]
    lists += [[Edit(layered(), 9.0, span="all", site=site) for site in SITES]]
    lists += [[Edit(layered(d=8), 9.0, span="output", site="z", head=2)], gated()]
    for edits in lists:
        wanted = generate_steered(arch_lm, prompts, edits, max_new_tokens=NEW)
        assert generate_steered(arch_lm, prompts, edits, max_new_tokens=NEW, backend=name) == wanted


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("operator", OPERATIONS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_model_and_its_wrapper_are_restored(tiny_lm, name, operator, phase):
    prompts = make_prompts(tiny_lm, 2)
    ids = torch.tensor([prompts[0].ids])
    weights, before = copy.deepcopy(tiny_lm.model.state_dict()), tiny_lm.model(ids).logits
    plain = [Edit(layered(), 0.0)]
    unsteered = decode(tiny_lm, prompts, max_new_tokens=3)
    options = {"max_new_tokens": 3, "backend": name}
    generate_steered(tiny_lm, prompts, [Edit(layered(), 30.0, None, operator, phase)], **options)
    assert generate_steered(tiny_lm, prompts, plain, **options) == unsteered
    assert torch.equal(tiny_lm.model(ids).logits, before)
    assert all(torch.equal(w, weights[k]) for k, w in tiny_lm.model.state_dict().items())


@pytest.mark.parametrize("name", LIBRARIES)
def test_an_error_inside_leaves_the_wrapper_usable(tiny_lm, name, monkeypatch):
    prompts, edits = make_prompts(tiny_lm, 2), [Edit(layered(), 9.0, span="all")]
    wanted = generate_steered(tiny_lm, prompts, edits, max_new_tokens=3)

    def fail(self, row_positions, real):
        raise LookupError("mine")

    with monkeypatch.context() as patch, pytest.raises(LookupError, match="mine"):
        patch.setattr("steering.interventions.composition.Composition.forward", fail)
        generate_steered(tiny_lm, prompts, edits, max_new_tokens=3, backend=name)
    assert generate_steered(tiny_lm, prompts, edits, max_new_tokens=3, backend=name) == wanted


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_miscount_is_an_error(tiny_lm, name, monkeypatch):
    steering = compose([Edit(layered(), 2.0)])
    writes = steering.writes()
    monkeypatch.setattr(steering, "writes", lambda: writes[:-1])
    monkeypatch.setattr(adapter_generation, "compose", lambda edits: steering)
    with pytest.raises(RuntimeError, match="applied 1 times where 2 were due"):
        generate_steered(tiny_lm, make_prompts(tiny_lm, 1), [Edit(layered())], max_new_tokens=2, backend=name)


def test_a_bridge_of_ones_own_is_steered_in_forwards_and_caches(tiny_lm):
    prompt = make_prompts(tiny_lm)[0]
    ids, own = torch.tensor([prompt.ids]), bridge._BRIDGES.of(tiny_lm)
    with torch.no_grad():
        with steer(tiny_lm.model, layered(), 5.0) as wanted:
            logits = tiny_lm.model(ids).logits
        plain = own(ids)
        with steer_transformer_lens(own, [Edit(layered(), 5.0)]) as record:
            found, cache = own.run_with_cache(ids)
        assert record == wanted
        assert torch.allclose(found, logits, atol=2e-5)
        assert not torch.allclose(plain, logits, atol=1e-2)
        with pytest.raises(KeyError), steer_transformer_lens(own, [Edit(layered(), 5.0)]):
            raise KeyError
        assert torch.equal(own(ids), plain)
    assert f"blocks.{max(layered())}.hook_resid_post" in cache


def test_mistakes_are_named(make_lm):
    lm = make_lm()
    prompts = make_prompts(lm, 1)
    with pytest.raises(UserError, match="layer=9 not in"):
        generate_steered(lm, prompts, [Edit({9: torch.ones(D)})], max_new_tokens=2, backend="transformer_lens")
    with pytest.raises(UserError, match="layer=9 not in"):
        generate_steered(lm, prompts, [Edit({9: torch.ones(D)})], max_new_tokens=2, backend="nnsight")
    with pytest.raises(UserError, match="the model has a hook"), steer(lm.model, layered()):
        generate_steered(lm, prompts, [Edit(layered())], max_new_tokens=2, backend="nnsight")
    own = bridge._BRIDGES.of(lm)
    with pytest.raises(UserError, match="prompt's fields"), steer_transformer_lens(own, [Edit(layered(), span="last")]):
        pass
    own.compatibility_mode = True
    with pytest.raises(UserError, match="compatibility mode"), steer_transformer_lens(own, [Edit(layered())]):
        pass
