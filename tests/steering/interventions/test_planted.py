"""A model whose copy decision is a known direction: slopes, crossings and gates are known before anything runs.

Its first block only attends, those behind it add nothing, and its head has no norm, so what is written at any later
layer reaches the logits as it is:  logit(copy) - logit(rewrite) = A h·u  at every token.
"""

import math

import pytest
import torch

from corrector.decoding import decode
from corrector.errors import UserError
from corrector.prompts import Encoded
from probes.directions import diff_means
from steering.interventions import Composition, Edit, Gate, Intervention, compose, steer, steer_all

D, A, NORM = 32, 2.0, 3.0
COPY, REWRITE, MARKER, PLAIN = 10, 11, 12, 13
AXIS = 0  # only the marker's embedding has anything here
BAD = [[20, 21, MARKER], [22, MARKER], [23, 24, 25, 26, MARKER]]
GOOD = [[20, 21, PLAIN], [MARKER, 22, PLAIN], [23, 24, 25, 26, PLAIN]]


@pytest.fixture(scope="module")
def u():
    drawn = torch.randn(D, generator=torch.Generator().manual_seed(1))
    drawn[AXIS] = 0
    return drawn / drawn.norm()


@pytest.fixture(scope="module")
def planted(make_lm, u):
    lm = make_lm()
    model = lm.model.model
    for k, block in enumerate(model.layers):
        block.mlp.down_proj.weight[:] = 0
        block.self_attn.o_proj.weight[... if k else AXIS] = 0
    model.norm = torch.nn.Identity()
    model.embed_tokens.weight[:, AXIS] = 0
    model.embed_tokens.weight[MARKER, AXIS] = 5
    head = lm.model.lm_head.weight
    head[:] = 0
    head[COPY], head[REWRITE] = A / 2 * u, -A / 2 * u
    return lm


def encoded(ids):
    n = len(ids)
    return Encoded(tuple(ids), {"prompt": (0, n), "prompt_last": (n - 1, n)})


def margin(lm, ids):
    """logit(copy) - logit(rewrite) at the last token."""
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0, -1]
    return float(logits[COPY] - logits[REWRITE])


def last_state(lm, ids, layer=1):
    kept = []
    handle = lm.model.model.layers[layer].register_forward_hook(lambda m, a, h: kept.append(h[0, -1].detach()))
    margin(lm, ids)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("layers", [[1], [3], [1, 2, 3]])
def test_add_has_the_planted_slope_in_each_layer_of_a_band(planted, u, layers):
    plain = margin(planted, BAD[0])
    assert plain == pytest.approx(A * float(last_state(planted, BAD[0]) @ u), abs=1e-4)
    for coef in (-2.0, -0.5, 0.0, 1.0, 2.0):
        with steer(planted.model, {k: NORM * u for k in layers}, coef):
            assert margin(planted, BAD[0]) == pytest.approx(plain + coef * A * NORM * len(layers), abs=1e-3)


def test_the_other_operators_have_their_planted_values(planted, u):
    h, vector = last_state(planted, BAD[0]), {2: NORM * u}
    p, size = float(h @ u), float(h.norm())
    theta = math.acos(p / size)
    wanted = {
        "ablate": lambda c: A * (1 - c) * p,
        "clamp": lambda c: A * c * NORM,
        "rotate": lambda c: A * size * math.cos(theta - c),
    }
    for name, value in wanted.items():
        for coef in (-1.5, 0.5, 1.0, 2.5):
            with steer(planted.model, vector, coef, operator=name):
                assert margin(planted, BAD[0]) == pytest.approx(value(coef), abs=1e-3)
    with steer(planted.model, vector, 0.5, operator="clamp", origin=[4.0]):
        assert margin(planted, BAD[0]) == pytest.approx(A * (4 + 0.5 * NORM), abs=1e-3)


def test_a_head_has_the_slope_of_its_output_weights(planted, u):
    o_proj = planted.model.model.layers[0].self_attn.o_proj.weight
    direction = torch.ones(8)
    with steer(planted.model, {0: direction}, 0.0, site="z", head=3):
        plain = margin(planted, BAD[0])
    with steer(planted.model, {0: direction}, 0.5, site="z", head=3):
        moved = margin(planted, BAD[0])
    assert moved - plain == pytest.approx(0.5 * A * float(u @ (o_proj[:, 24:] @ direction)), abs=1e-3)
    assert abs(moved - plain) > 0.05


def test_the_decision_flips_at_the_planted_coefficient(planted, u):
    for ids in (*BAD, *GOOD):
        crossing = -float(last_state(planted, ids) @ u) / NORM
        coefs = [crossing - 0.05, crossing + 0.05, crossing - 3, crossing + 3]
        steering = Intervention.of({3: NORM * u}, coefs)
        outputs = decode(planted, [encoded(ids)] * 4, max_new_tokens=1, steering=steering)
        assert [o.ids[0] for o in outputs] == [REWRITE, COPY, REWRITE, COPY]


@pytest.mark.parametrize("operator", ["add", "ablate", "clamp", "rotate"])
def test_a_gate_acts_in_the_planted_rows_only(planted, u, operator):
    """Only the rows that end in the marker are steered, from then on, at the tokens they write as well."""
    rows, v = [*BAD, *GOOD], {1: NORM * u, 2: NORM * u}
    condition = torch.eye(D)[AXIS]
    edit = Edit(v, 1.0, operator=operator, span="prompt_last+output", gate=Gate(7 * condition, 1, threshold=2.5))
    got = decode(planted, [encoded(r) for r in rows], max_new_tokens=3, steering=compose([edit]))
    free = compose([Edit(v, 1.0, operator=operator, span="prompt_last+output")])
    steered = decode(planted, [encoded(r) for r in rows], max_new_tokens=3, steering=free)
    plain = decode(planted, [encoded(r) for r in rows], max_new_tokens=3)
    assert [o.applied for o in got] == [6, 6, 6, 0, 0, 0]
    solo = decode(planted, [encoded(r) for r in rows], max_new_tokens=3, steering=compose([edit]), batch_size=1)
    assert [o.ids for o in got[3:]] == [o.ids for o in plain[3:]] == [o.ids for o in solo[3:]]
    if operator != "ablate":  # without the planted direction all logits are 0, and which is largest is rounding
        assert got[:3] == steered[:3] == solo[:3]


def test_a_gate_by_token_opens_the_marked_tokens_only(planted, u):
    condition, ids = torch.eye(D)[AXIS], torch.tensor([[MARKER, 20, MARKER, 21, PLAIN]])
    seen = []
    handle = planted.model.model.layers[3].register_forward_hook(lambda m, a, h: seen.append(h[0].clone()))
    gate = Gate(condition, 0, 2.5, when="token")
    with torch.no_grad():
        planted.model(ids)
        with steer(planted.model, {1: NORM * u}, 2.0, span="all", gate=gate) as record:
            planted.model(ids)
    handle.remove()
    moved = (seen[1] - seen[0]) @ u
    assert record.applied == 2
    assert torch.allclose(moved, torch.tensor([6.0, 0, 6.0, 0, 0]), atol=1e-4)
    with steer(planted.model, {1: NORM * u}, 2.0, span="prompt_last", gate=gate) as record:
        planted.model(ids)  # a gate that stays closed is a result, not a mistake
    assert record.applied == 0


@pytest.mark.parametrize("when", ["prompt_last", "token"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_gated_generation_is_the_same_with_and_without_a_cache(planted, u, when, use_cache):
    rows = [*BAD, *GOOD]
    edit = Edit({1: NORM * u}, -4.0, span="all", gate=Gate(torch.eye(D)[AXIS], 1, 2.5, when))
    wanted = decode(planted, [encoded(r) for r in rows], max_new_tokens=3, steering=compose([edit]))
    ids = torch.tensor([[0] * (5 - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (5 - len(r)) + [1] * len(r) for r in rows])
    with steer_all(planted.model, [edit]):
        out = planted.model.generate(
            ids, attention_mask=mask, max_new_tokens=3, do_sample=False, use_cache=use_cache, pad_token_id=0
        )
    assert [tuple(row) for row in out[:, 5:].tolist()] == [o.ids for o in wanted]


def test_the_gate_of_a_fitted_direction_opens_where_it_predicts_positive(planted, u):
    bad, good = (torch.stack([last_state(planted, ids) for ids in rows]) for rows in (BAD, GOOD))
    fitted = diff_means(bad, good)
    with pytest.raises(UserError, match="without threshold or layer gates nothing"):
        Gate.of(fitted)
    direction = type(fitted)(fitted.vector, "diff_means", 1, "resid_post", "prompt_last", threshold=fitted.threshold)
    steering = compose([Edit({1: NORM * u}, 1.0, gate=Gate.of(direction))])
    outputs = decode(planted, [encoded(r) for r in (*BAD, *GOOD)], max_new_tokens=1, steering=steering)
    assert [o.applied > 0 for o in outputs] == direction.predict(torch.cat([bad, good])).tolist()
    assert [o.applied > 0 for o in outputs] == [True] * 3 + [False] * 3


def test_gates_that_cannot_decide_are_refused(planted, u):
    condition = torch.eye(D)[AXIS]
    with pytest.raises(UserError, match="the gate reads resid_post of layer 2, behind resid_post of layer 1"):
        compose([Edit({1: u, 3: u}, gate=Gate(condition, 2))])
    with pytest.raises(UserError, match="behind attn_out of layer 1"):
        compose([Edit({1: u}, site="attn_out", gate=Gate(condition, 1))])
    for change, said in (
        ({"vector": torch.zeros(D)}, "direction has norm 0.0"),
        ({"threshold": math.nan}, "threshold=nan"),
        ({"when": "always"}, "when='always' is not one of prompt_last, token"),
        ({"site": "logits"}, "site='logits'"),
    ):
        with pytest.raises(UserError, match=said):
            Gate(**{"vector": condition, "layer": 1, **change})
    with pytest.raises(UserError, match="layer=9 not in"), steer(planted.model, {9: u}, gate=Gate(condition, 9)):
        pass
    with pytest.raises(RuntimeError, match="before its prompt's last token, at which the gate decides"):
        with steer(planted.model, {1: u}, span="all", gate=Gate(condition, 1), prompt_lengths=[4]):
            cache = planted.model(torch.tensor([[20, 21]]), use_cache=True).past_key_values
            planted.model(torch.tensor([[22, 23]]), past_key_values=cache)


def test_a_condition_that_is_never_read_is_an_error(planted, u, monkeypatch):
    part = Intervention.of({1: u}, 1.0, gate=Gate(torch.eye(D)[AXIS], 1))
    writes = part.writes()
    monkeypatch.setattr(part, "writes", lambda: writes[1:])
    with pytest.raises(RuntimeError, match="the gate's condition was not read"):
        decode(planted, [encoded(BAD[0])], max_new_tokens=1, steering=Composition([part]))
