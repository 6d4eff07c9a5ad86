"""Identity, invariance and counting of interventions, on five architectures, with and without the lab's decoder."""

import copy
import math
import random

import pytest
import torch

from corrector.decoding import PLAIN, decode
from corrector.errors import UserError
from corrector.models import blocks
from probes.backends.copies import hooks_of
from probes.sites import SITES, by_head, submodule
from steering.interventions import (
    Composition,
    Edit,
    Gate,
    Intervention,
    compose,
    make_bank,
    of_head,
    one_per_row,
    steer,
    steer_all,
)
from steering.interventions.context import follow, whole_prompts
from steering.interventions.positions import PHASES, overlap, resolve
from steering.operators import OPERATORS, operator
from steering.vectors import SteeringVector
from tests.steering.uncached import decode_uncached

D, LAYERS, NEW = 32, [1, 2], 8
SPANS = ["prompt_last", "prompt", "output", "output[0:3]", "prompt_last+output", "all", "last", "question+prefix"]
BARE_SPANS = ["prompt_last", "prompt", "output", "output[0:3]", "prompt_last+output", "all"]
OPERATIONS = sorted(OPERATORS)
TEXTS = ["Tom has 12 apples.", "Ann buys 3 bags of 4 coins.", "Mia eats 2 apples, so she has 10.", "it is 7."]


def make_prompts(lm, n=6):
    rng = random.Random(0)
    return [lm.encode("how many has Tom?", " ".join(TEXTS[: rng.randint(0, 3)]), rng.choice(TEXTS)) for _ in range(n)]


def make_vectors(seed=0, n=1):
    return torch.randn(n, len(LAYERS), D, generator=torch.Generator().manual_seed(seed))


def one(coefs, span="prompt_last", operator="add", seed=0):
    return Intervention(make_vectors(seed), LAYERS, [0] * len(coefs), coefs, operator, span)


def layered(seed=0, d=D):
    return dict(zip(LAYERS, make_vectors(seed)[0, :, :d], strict=True))


def uncached(lm, prompt, n, vectors, coef, span, name="add"):
    changes = {layer: lambda h, v=v: operator(name)(h, v[None], coef) for layer, v in zip(LAYERS, vectors, strict=True)}
    return decode_uncached(lm, prompt, n, span, changes)


@pytest.mark.parametrize("span", SPANS)
def test_cached_batched_decoding_equals_the_uncached_oracle(arch_lm, span):
    prompts, vectors = make_prompts(arch_lm), make_vectors()[0]
    coefs = [6.0, -6.0, 0.0, 6.0, 3.0, 0.0]
    got = decode(arch_lm, prompts, max_new_tokens=NEW, steering=one(coefs, span))
    wanted = [uncached(arch_lm, p, NEW, vectors, c, span) for p, c in zip(prompts, coefs, strict=True)]
    assert [o.ids for o in got] == wanted
    for o, p, c in zip(got, prompts, coefs, strict=True):
        fed = len(p) + len(o.ids) - (not o.ended)
        places = {i for start, end in resolve(span, p.spans) for i in range(start, min(end, fed))}
        assert o.applied == (len(places) * len(LAYERS) if c else 0)


@pytest.mark.parametrize("span", [*PHASES, "tokens[2:9]+output[1:]"])
@pytest.mark.parametrize("name", sorted({*OPERATIONS} - {"add"}))
def test_every_operator_in_every_phase_equals_the_uncached_oracle(tiny_lm, name, span):
    prompts, vectors = make_prompts(tiny_lm, 4), make_vectors()[0]
    coefs = [4.0, -4.0, None, 0.0]
    got = decode(tiny_lm, prompts, max_new_tokens=5, steering=one(coefs, span, name))
    for o, p, c in zip(got, prompts, coefs, strict=True):
        moved = c is not None and (c != 0 or name == "clamp")
        assert o.ids == uncached(tiny_lm, p, 5, vectors, c if moved else 0.0, span, name if moved else "add")
        assert (o.applied > 0) == moved or span == "output"
    plain = decode(tiny_lm, prompts, max_new_tokens=5)
    assert got[2].ids == plain[2].ids
    assert any(a.ids != b.ids for a, b in zip(got, plain, strict=True))


def test_steering_changes_something(arch_lm):
    prompts = make_prompts(arch_lm)
    plain = decode(arch_lm, prompts, max_new_tokens=NEW)
    # Gemma2 scales its embeddings, so it takes more to move it
    steered = decode(arch_lm, prompts, max_new_tokens=NEW, steering=one([30.0] * 6, "prompt_last+output"))
    assert sum(a.ids != b.ids for a, b in zip(plain, steered, strict=True)) >= 3


@pytest.mark.parametrize(("name", "coef"), [("add", 0.0), ("ablate", 0.0), ("rotate", 0.0), ("clamp", None)])
def test_no_coefficient_is_the_bitwise_identity(arch_lm, name, coef):
    prompts = make_prompts(arch_lm)
    zero = Intervention(torch.full((1, 2, D), math.nan), LAYERS, [0] * 6, [coef] * 6, name, "all")
    assert decode(arch_lm, prompts, max_new_tokens=NEW, steering=zero) == decode(arch_lm, prompts, max_new_tokens=NEW)
    ids = torch.tensor([prompts[0].ids])
    with torch.no_grad():
        plain = arch_lm.model(ids).logits
        with steer(arch_lm.model, layered(), [coef], operator=name, span="all"):
            assert torch.equal(arch_lm.model(ids).logits, plain)


def test_rows_of_a_batch_equal_separate_runs(arch_lm):
    prompts = [make_prompts(arch_lm)[i] for i in (0, 0, 1, 1, 2, 3)]
    bank, which, coefs = make_vectors(n=3), [0, 1, 2, 0, 1, 2], [8.0, 8.0, -8.0, 0.0, 4.0, -2.0]
    both = Intervention(bank, LAYERS, which, coefs, span="prompt_last+output")
    got = decode(arch_lm, prompts, max_new_tokens=NEW, steering=both, batch_size=6)
    assert decode(arch_lm, prompts, max_new_tokens=NEW, steering=both, batch_size=1) == got
    for i, prompt in enumerate(prompts):
        alone = Intervention(bank[which[i], None], LAYERS, [0], [coefs[i]], span="prompt_last+output")
        assert decode(arch_lm, [prompt], max_new_tokens=NEW, steering=alone) == [got[i]]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("span", BARE_SPANS)
def test_steer_with_generate_equals_the_decoder(arch_lm, span, use_cache):
    prompts, coef = make_prompts(arch_lm), 6.0
    wanted = decode(arch_lm, prompts, max_new_tokens=NEW, steering=one([coef] * 6, span))
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p.ids) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    with steer(arch_lm.model, layered(), coef=coef, span=span) as record:
        out = arch_lm.model.generate(
            ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, use_cache=use_cache, pad_token_id=0
        )
    for row, o in zip(out[:, longest:].tolist(), wanted, strict=True):
        assert tuple(row[: len(o.ids)]) == o.ids
    assert record.forwards <= NEW
    assert record.applied > 0


def test_steer_in_plain_forwards_ignores_padding(arch_lm):
    prompt, vector = make_prompts(arch_lm)[3], layered()
    n, pad = len(prompt), 5
    left = torch.tensor([[0] * pad + list(prompt.ids)])
    right = torch.tensor([list(prompt.ids) + [0] * pad])
    mask = torch.tensor([[0] * pad + [1] * n])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad(), steer(arch_lm.model, vector, coef=5.0, span="prompt_last") as record:
        alone = arch_lm.model(torch.tensor([prompt.ids])).logits[0]
        padded = arch_lm.model(left, attention_mask=mask, position_ids=positions).logits[0, pad:]
        trailing = arch_lm.model(right, attention_mask=mask.flip(1)).logits[0, :n]
    assert record.applied == 3 * len(LAYERS)
    plain = arch_lm.model(torch.tensor([prompt.ids])).logits[0]
    assert torch.equal(alone[:-1], plain[:-1])
    assert not torch.allclose(alone[-1], plain[-1], atol=1e-3)
    assert torch.allclose(padded, alone, atol=1e-3)
    assert torch.allclose(trailing, alone, atol=1e-3)


def test_prompt_lengths_place_teacher_forced_output(tiny_lm):
    prompt = make_prompts(tiny_lm)[0]
    ids = torch.tensor([[*prompt.ids, 20, 21, 22, 23]])
    vector = {1: make_vectors()[0, 0]}
    with torch.no_grad(), steer(tiny_lm.model, vector, span="output[1:3]", prompt_lengths=[len(prompt)]) as record:
        steered = tiny_lm.model(ids).logits[0]
    plain = tiny_lm.model(ids).logits[0]
    at = len(prompt) + 1
    assert record.applied == 2
    assert torch.equal(steered[:at], plain[:at])
    assert all(not torch.allclose(steered[i], plain[i], atol=1e-4) for i in range(at, at + 3))


@pytest.mark.parametrize("site", SITES)
def test_leaving_restores_the_model_also_by_an_exception(arch_lm, site):
    model = arch_lm.model
    ids = torch.tensor([make_prompts(arch_lm)[0].ids])
    weights, plain = copy.deepcopy(model.state_dict()), model(ids).logits
    with pytest.raises(KeyError, match="mine"):
        with steer(model, layered(), coef=50.0, span="all", site=site) as record:
            assert not torch.equal(model(ids).logits, plain)
            raise KeyError("mine")
    assert record.applied == 2 * ids.shape[1]
    assert torch.equal(model(ids).logits, plain)
    assert all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())
    assert not hooks_of(model)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operator_restores_in_every_phase(tiny_lm, name, phase):
    model, ids = tiny_lm.model, torch.tensor([make_prompts(tiny_lm)[0].ids])
    plain = model(ids).logits
    with pytest.raises(KeyError), steer(model, layered(), 1.5, None, name, phase, prompt_lengths=[ids.shape[1] - 3]):
        assert not torch.equal(model(ids).logits, plain)
        raise KeyError
    assert torch.equal(model(ids).logits, plain)
    assert not hooks_of(model)


@pytest.mark.parametrize("c", [0.0, 1.2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_coefficient_and_vector_take_gradients(make_lm, name, c):
    model, ids = make_lm("gpt2").model.double(), torch.tensor([[5, 6, 7, 8], [9, 5, 4, 6]])
    vector = make_vectors()[0, :1].double().requires_grad_()
    coef = torch.tensor([c, c / 2], dtype=torch.float64, requires_grad=True)

    def logit(coef, vector):
        steering = Composition([Intervention(vector[:, None], [1], [0, 0], coef, name, "all")])
        with follow(model, steering, steering.attach(model), whole_prompts(steering)):
            return model(ids).logits[:, -1, :3].sum()

    got = torch.autograd.grad(logit(coef, vector), (coef, vector))
    eps, wanted = 1e-5, []
    for x, k in ((coef, 0), (coef, 1), (vector, (0, 3)), (vector, (0, 7))):
        low, high = x.detach().clone(), x.detach().clone()
        low[k] -= eps
        high[k] += eps
        ends = [logit(*((y.requires_grad_(), vector) if x is coef else (coef, y))) for y in (low, high)]
        wanted.append((ends[1] - ends[0]).item() / (2 * eps))
    found = [got[0][0].item(), got[0][1].item(), got[1][0, 3].item(), got[1][0, 7].item()]
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert any(abs(x) > 1e-3 for x in found)


def test_steer_takes_a_tensor_coefficient(tiny_lm):
    coef, ids = torch.tensor(0.0, requires_grad=True), torch.tensor([[5, 6, 7]])
    vector = {1: make_vectors()[0, 0].requires_grad_()}
    with steer(tiny_lm.model, vector, coef, span="all"):
        logits = tiny_lm.model(ids).logits
    assert torch.equal(logits.detach(), tiny_lm.model(ids).logits)
    logits[0, -1, 9].backward()
    assert coef.grad is not None and abs(float(coef.grad)) > 1e-3


def test_a_head_is_written_and_its_neighbours_keep_their_bits(arch_lm):
    model, ids, seen = arch_lm.model, torch.tensor([make_prompts(arch_lm)[0].ids]), []
    module, _ = submodule(blocks(model)[1], "z")

    def read():
        handle = module.register_forward_pre_hook(lambda m, a: seen.append(by_head(a[0].clone(), 4)))
        with torch.no_grad():
            model(ids)
        handle.remove()

    read()
    whole = {1: make_vectors()[0, 0]}
    with steer(model, of_head(whole, 2, 4), 3.0, span="all", site="z", head=2) as record:
        read()
    assert record.applied == ids.shape[1]
    plain, steered = seen
    assert torch.equal(steered[..., [0, 1, 3], :], plain[..., [0, 1, 3], :])
    assert torch.allclose(steered[..., 2, :], plain[..., 2, :] + 3 * whole[1][16:24], atol=1e-5)


def test_all_heads_together_are_the_whole_site(tiny_lm):
    prompts, whole = make_prompts(tiny_lm), layered()
    heads = compose([Edit(of_head(whole, k, 4), 5.0, span="all", site="z", head=k) for k in range(4)])
    at_once = compose([Edit(whole, 5.0, span="all", site="z")])
    got, wanted = (decode(tiny_lm, prompts, max_new_tokens=NEW, steering=s) for s in (heads, at_once))
    assert [o.ids for o in got] == [o.ids for o in wanted]
    assert [o.applied for o in got] == [4 * o.applied for o in wanted]


def test_several_vectors_act_in_the_order_of_the_list(tiny_lm):
    model, ids = tiny_lm.model, torch.tensor([make_prompts(tiny_lm)[0].ids])
    a, b = layered(1), layered(2)
    both = {k: 2 * a[k] - 3 * b[k] for k in LAYERS}
    edits = [Edit(a, 2.0, span="all"), Edit(b, -3.0, span="all")]
    with torch.no_grad():
        with steer_all(model, edits) as record:
            summed = model(ids).logits
        assert record.applied == 4 * ids.shape[1]
        with steer(model, both, span="all"):
            assert torch.allclose(model(ids).logits, summed, atol=1e-3)
        logits = []
        for edits in ([Edit(a, 9.0), Edit(a, operator="ablate")], [Edit(a, operator="ablate"), Edit(a, 9.0)]):
            with steer_all(model, edits):
                logits.append(model(ids).logits)
        with steer(model, a, operator="ablate"):
            assert torch.allclose(model(ids).logits, logits[0], atol=1e-3)
        assert not torch.allclose(logits[0], logits[1], atol=1e-2)


def test_rows_of_one_batch_have_their_own_operators_layers_and_spans(arch_lm):
    prompts = make_prompts(arch_lm)
    edits = [
        Edit(layered(1), 6.0),
        Edit(layered(2), -6.0),
        Edit(layered(1), 1.0, [2], "rotate", "output"),
        Edit(layered(1), 0.0, [1], "clamp", "last", origin=[3.0]),
        None,
        Edit({1: layered()[1][:8]}, 5.0, span="all", site="z", head=1),
    ]
    together = one_per_row(edits)
    assert len(together.parts) == 4
    got = decode(arch_lm, prompts, max_new_tokens=NEW, steering=together)
    for edit, prompt, o in zip(edits, prompts, got, strict=True):
        steering = None if edit is None else compose([edit])
        assert decode(arch_lm, [prompt], max_new_tokens=NEW, steering=steering) == [o]


@pytest.mark.parametrize("gated", [False, True])
def test_a_miscount_is_an_error(make_lm, monkeypatch, gated):
    lm = make_lm()
    steering = compose([Edit(layered(), 2.0, gate=Gate(make_vectors()[0, 0], 0, -1e9) if gated else None)])
    writes = steering.parts[0].writes()
    monkeypatch.setattr(steering.parts[0], "writes", lambda: writes[:-1])
    with pytest.raises(RuntimeError, match="applied 1 times where 2 were due"):
        decode(lm, make_prompts(lm, 1), max_new_tokens=2, steering=steering)


def test_an_error_in_a_block_passes_through_and_restores(make_lm):
    lm = make_lm()
    ids = torch.tensor([make_prompts(lm)[0].ids])
    plain = lm.model(ids).logits

    def fail(module, args):
        raise ZeroDivisionError

    handle = lm.model.model.layers[3].register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError), steer(lm.model, {1: make_vectors()[0, 0]}, span="all"):
        lm.model(ids)
    handle.remove()
    assert torch.equal(lm.model(ids).logits, plain)


def test_a_block_without_effect_is_an_error(make_lm):
    lm = make_lm()
    ids, vector = torch.tensor([make_prompts(lm)[0].ids]), {1: make_vectors()[0, 0]}
    with pytest.raises(UserError, match="no token of the 1 forwards lay in span='output'"):
        with steer(lm.model, vector, span="output"):
            lm.model(ids)
    with pytest.raises(RuntimeError, match="no hook fired"):
        with steer(lm.model, vector):
            lm.model.model.layers = copy.deepcopy(lm.model.model.layers)
            for block in lm.model.model.layers:
                block._forward_hooks.clear()
            lm.model(ids)
    with steer(lm.model, vector):
        pass


def test_steer_refuses_what_it_cannot_follow(tiny_lm):
    vector, ids = {1: make_vectors()[0, 0]}, torch.tensor([[5, 6, 7]])
    filled = tiny_lm.model(ids, use_cache=True).past_key_values
    with pytest.raises(UserError, match="continues a cache of 3 tokens"), steer(tiny_lm.model, vector):
        tiny_lm.model(torch.tensor([[8]]), past_key_values=filled)
    with pytest.raises(UserError, match="prompt_lengths has 2 numbers for 1 rows"):
        with steer(tiny_lm.model, vector, prompt_lengths=[1, 2]):
            tiny_lm.model(ids)
    with pytest.raises(UserError, match="is not the"), steer(tiny_lm.model, vector):
        tiny_lm.model(ids, attention_mask=torch.zeros(1, 1, 3, 3))
    with pytest.raises(UserError, match="prompt's fields"), steer(tiny_lm.model, vector, span="last"):
        pass


def test_a_generation_whose_rows_leave_is_refused(tiny_lm):
    vector = {1: make_vectors()[0, 0]}
    with pytest.raises(UserError, match=r"use decode\(..., steering"), steer(tiny_lm.model, vector):
        decode(tiny_lm, make_prompts(tiny_lm, 3), max_new_tokens=6)
    with pytest.raises(UserError, match="goes on with"), steer(tiny_lm.model, vector):
        decode(
            tiny_lm,
            make_prompts(tiny_lm, 3),
            max_new_tokens=6,
            tricks=PLAIN,
            stop=lambda ids, seen=[]: seen.append(0) or len(seen) == 2,
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coef": [math.inf]}, "coef=inf is not finite"),
        ({"coef": [math.nan]}, "coef=nan is not finite"),
        ({"layers": [1, 9]}, r"layer=9 not in 0\.\.3; choose --layers in that range"),
        ({"layers": [1]}, "layers="),
        ({"which": [4]}, r"which=4 not in 0\.\.0"),
        ({"which": [0, 0]}, "2 directions for 1 coefficients"),
        ({"operator": "multiply"}, "operator='multiply'"),
        ({"span": "everything"}, "span='everything'"),
        ({"span": "output[3:3]"}, "is empty"),
        ({"bank": torch.zeros(1, 2, D)}, "norm 0.0 at layer 1"),
        ({"bank": torch.full((1, 2, D), math.nan)}, "norm nan"),
        ({"bank": torch.ones(1, 2, D + 1)}, "does not fit a model of hidden size 32"),
    ],
)
def test_mistakes_are_named(tiny_lm, change, said):
    options = {"bank": make_vectors(), "layers": LAYERS, "which": [0], "coef": [1.0], **change}
    with pytest.raises(UserError, match=said), Intervention(**options).attach(tiny_lm.model):
        pass


def test_a_field_that_the_prompt_lacks_is_named(tiny_lm):
    upstream = tiny_lm.encode_upstream("how many has Tom?", "")
    with pytest.raises(UserError, match="span='last' is no part of this prompt"):
        decode(tiny_lm, [upstream], max_new_tokens=2, steering=one([1.0], "last"))


def test_mistakes_of_edits_are_named(tiny_lm):
    vector = layered()
    with pytest.raises(UserError, match="the list of edits is empty"):
        compose([])
    with pytest.raises(UserError, match="row 0 has several coefficients"):
        one_per_row([Edit(vector, [1.0, 2.0])])
    with pytest.raises(UserError, match="head=1 is of site z"):
        compose([Edit(vector, head=1)])
    with pytest.raises(UserError, match="origin is clamp's"):
        compose([Edit(vector, origin=[0.0, 0.0])])
    with pytest.raises(UserError, match="site='logits' is not one of"):
        compose([Edit(vector, site="logits")])
    for edit, said in (
        (Edit(layered(d=8), site="z", head=4), r"head=4 not in 0\.\.3"),
        (Edit(vector, site="z", head=0), "32 numbers does not fit a head of 8; cut it with of_head"),
        (Edit(layered(d=8), site="z"), "8 numbers does not fit a model of 32 numbers at site z"),
        (Edit(vector, [1.0, 2.0]), "2 coefficients for 1 rows"),
    ):
        with pytest.raises(UserError, match=said), steer_all(tiny_lm.model, [edit]):
            tiny_lm.model(torch.tensor([[5, 6]]))
    with pytest.raises(UserError, match=r"head=7 not in 0\.\.3"):
        of_head(vector, 7, 4)


def test_make_bank_names_a_missing_layer_and_a_foreign_site():
    vector = {1: torch.ones(D)}
    assert make_bank([vector, vector], [1]).shape == (2, 1, D)
    with pytest.raises(UserError, match=r"layer=3 is not in the vector, which has \[1\]"):
        make_bank([vector], [3])
    read = SteeringVector(vector, "diff_means", "attn_out", "prompt_last", "", "lab", "random")
    assert torch.equal(make_bank([read], [1], "attn_out"), make_bank([vector], [1]))
    with pytest.raises(UserError, match="read at site='attn_out'; read it where it is written, at resid_post"):
        make_bank([read], [1])


def test_spans_resolve_to_disjoint_absolute_ranges():
    spans = {"question": (1, 4), "prefix": (5, 5), "last": (6, 9), "prompt": (0, 10), "prompt_last": (9, 10)}
    assert resolve("prompt_last", spans) == [(9, 10)]
    assert resolve("output[0:2]", spans) == [(10, 12)]
    assert resolve("prompt_last+output[0:2]", spans) == [(9, 12)]
    assert resolve("question+last+question", spans) == [(1, 4), (6, 9)]
    assert resolve("prefix", spans) == []
    assert resolve("tokens[2:5]+tokens[7:8]", spans) == [(2, 5), (7, 8)]
    assert overlap(resolve("all", spans), 13) == 13
    assert overlap(resolve("output[1:]", spans), 13) == 2
    assert overlap(resolve("question+last", spans), 7) == 4
