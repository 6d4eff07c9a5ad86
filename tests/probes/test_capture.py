import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.tasks.base import Pair
from probes import reductions
from probes.backends import pad
from probes.capture import by_head, capture, capture_all, capture_tokens, check_dtype, hooked, sequence
from probes.directions import fit
from probes.sites import SITES, check_site, submodule
from probes.spans import Sequence, resolve_span

PAIRS = [
    Pair("p0", "Tom has 3 pens", "", "he has 5 coins", "he has 6 coins"),
    Pair("p1", "Ann buys 12 apples", "she has 4.", "so Ann has 16", "so Ann has 16"),
    Pair("p2", "Mia sells 7 bags of coins", "Mia has 1 more. she gets 22 apples", "no", "she has 9 apples in all"),
]


BLOCKS = {
    **{f"random-{arch}": "model.layers" for arch in ("llama", "qwen2", "gemma2")},
    **{"random-gpt2": "transformer.h", "random-gpt_neox": "gpt_neox.layers"},
}


def forced(lm):
    return [sequence(lm, p, p.correction) for p in PAIRS]


def test_spans_are_the_tokens_they_name(arch_lm):
    pair = PAIRS[2]
    s = sequence(arch_lm, pair, pair.correction)
    for name, text in (("question", pair.question), ("prefix", pair.prefix), ("last", pair.last)):
        assert arch_lm.tokenizer.decode(list(s.ids[slice(*s.spans[name])])) == text
    assert arch_lm.decode(list(s.ids[slice(*s.spans["output"])])) == pair.correction
    assert s.ids[-1] == arch_lm.eos_id
    assert s.spans["prompt_last"][1] == s.spans["prompt"][1] == s.spans["output"][0]


def test_captured_residual_equals_hidden_states_before_the_final_norm(arch_lm):
    sequences = forced(arch_lm)
    got = capture_all(
        arch_lm, sequences, ("resid_pre", "resid_post"), spans=("prompt_last", "output[0:3]"), batch_size=2
    )
    for i, s in enumerate(sequences):
        with torch.no_grad():
            states = arch_lm.model(torch.tensor([s.ids]), output_hidden_states=True).hidden_states
        at, n = s.spans["prompt_last"][0], s.spans["output"][0]
        for layer in range(arch_lm.n_layers):
            pre, post = states[layer][0], states[layer + 1][0]
            torch.testing.assert_close(got["resid_pre", "prompt_last"].at(layer)[i], pre[at], atol=2e-5, rtol=0)
            if layer < arch_lm.n_layers - 1:  # the last state HF returns is after the final norm
                torch.testing.assert_close(got["resid_post", "prompt_last"].at(layer)[i], post[at], atol=2e-5, rtol=0)
                mean = post[n : n + 3].mean(0)
                torch.testing.assert_close(got["resid_post", "output[0:3]"].at(layer)[i], mean, atol=2e-5, rtol=0)


def test_last_layer_is_before_the_final_norm(arch_lm):
    s = forced(arch_lm)[0]
    (h,) = capture_tokens(arch_lm, [s], layers=[arch_lm.n_layers - 1], span="prompt")
    with torch.no_grad():
        final = arch_lm.model.base_model(torch.tensor([s.ids])).last_hidden_state[0, : h.shape[1]]
        norm = next(
            m for n, m in arch_lm.model.base_model.named_children() if n in ("norm", "ln_f", "final_layer_norm")
        )
        assert not torch.allclose(h[0], final, atol=0.1)
        torch.testing.assert_close(norm(h[0]), final, atol=2e-5, rtol=0)


def test_sites_add_up_to_the_residual_stream(arch_lm):
    got = capture_all(arch_lm, forced(arch_lm), SITES, spans=("output",))
    h = {site: got[site, "output"].h for site in SITES}
    total = h["resid_pre"] + h["attn_out"] + h["mlp_out"]
    torch.testing.assert_close(total, h["resid_post"], atol=1e-4, rtol=1e-5)
    assert all(h[site].abs().mean() > 1e-3 for site in SITES)


def test_z_times_the_output_projection_is_what_attention_adds(arch_lm):
    got = capture_all(arch_lm, forced(arch_lm), ("z", "attn_out"), spans=("prompt_last",))
    for layer, block in enumerate(arch_lm.model.get_submodule(BLOCKS[arch_lm.ref])):
        projection, side = submodule(block, "z")
        with torch.no_grad():
            out = projection(got["z", "prompt_last"].at(layer))
            if arch_lm.ref == "random-gemma2":
                out = block.post_attention_layernorm(out)
        assert side == "input"
        torch.testing.assert_close(out, got["attn_out", "prompt_last"].at(layer), atol=2e-5, rtol=0)


def test_heads_of_z_are_attention_patterns_times_values(tiny_lm):
    s, block = forced(tiny_lm)[0], tiny_lm.model.model.layers[1]
    n_heads, n_kv = 4, 2
    (z,) = capture_tokens(tiny_lm, [s], "z", layers=[1], span="prompt")
    (resid,) = capture_tokens(tiny_lm, [s], "resid_pre", layers=[1], span="prompt")
    with torch.no_grad():
        ids = torch.tensor([s.ids[: z.shape[1]]])
        pattern = tiny_lm.model(ids, output_attentions=True).attentions[1][0]
        values = by_head(block.self_attn.v_proj(block.input_layernorm(resid[0])), n_kv)
    heads = by_head(z[0], n_heads)
    for k in range(n_heads):
        torch.testing.assert_close(heads[:, k], pattern[k] @ values[:, k * n_kv // n_heads], atol=2e-5, rtol=0)


def test_by_head_refuses_heads_that_do_not_fit(tiny_lm):
    h = torch.arange(24.0).reshape(2, 12)
    assert torch.equal(by_head(h, 3)[1, 2], h[1, 8:])
    for n in (0, 5):
        with pytest.raises(UserError, match="does not divide 12"):
            by_head(h, n)


@given(st.data(), st.sampled_from(["left", "right"]))
def test_reductions_are_those_of_a_loop_and_see_nothing_outside_the_span(data, padding):
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    ranges = [(a, data.draw(st.integers(a + 1, n))) for n in lengths for a in [data.draw(st.integers(0, n - 1))]]
    batch = pad([(1,) * n for n in lengths], padding, torch.device("cpu"))
    h = torch.full((*batch.ids.shape, 3), torch.nan)
    parts = [torch.randn(b - a, 3, generator=torch.Generator().manual_seed(a)) for a, b in ranges]
    for i, ((a, b), part) in enumerate(zip(ranges, parts, strict=True)):
        h[i, batch.offsets[i] + a : batch.offsets[i] + b] = part
    torch.testing.assert_close(reductions.mean(batch, ranges)(h), torch.stack([p.mean(0) for p in parts]))
    assert torch.equal(reductions.last(batch, ranges)(h), torch.stack([p[-1] for p in parts]))
    assert torch.equal(reductions.every(batch, ranges)(h), torch.cat(parts))


def test_half_precision_keeps_the_numbers_rounded_and_computes_in_float32(tiny_lm):
    sequences = forced(tiny_lm)
    whole = capture(tiny_lm, sequences, span="last")
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        half = capture(tiny_lm, sequences, span="last", dtype=name)
        assert half.h.dtype == dtype and torch.equal(half.h, whole.h.to(dtype))
        assert half.at(2).dtype == torch.float32 and half.mean_norm(2) == pytest.approx(whole.mean_norm(2), rel=0.01)
        tokens = capture_tokens(tiny_lm, sequences, span="last", dtype=name)
        assert {t.dtype for t in tokens} == {dtype}
        other = capture(tiny_lm, sequences[1:], span="last", dtype=name)
        assert fit("diff_means", half, other)[2].vector.dtype == torch.float32


def test_what_float16_cannot_hold_is_an_error_and_no_infinity(make_lm):
    lm = make_lm("llama")
    with torch.no_grad():
        lm.model.model.layers[1].mlp.down_proj.weight.mul_(1e6)
    with pytest.raises(UserError, match=r"resid_post reaches .* more than float16 holds; choose --dtype bfloat16"):
        capture(lm, forced(lm), dtype="float16")
    assert capture(lm, forced(lm), dtype="bfloat16").h.isfinite().all()


def test_nothing_captured_drags_a_graph_along(make_lm):
    lm = make_lm("gpt2")
    lm.model.requires_grad_(True)
    assert not capture(lm, forced(lm), span="last").h.requires_grad
    assert not capture_tokens(lm, forced(lm), span="last")[0].requires_grad


def test_several_sites_stop_behind_the_last_of_them_in_execution_order(make_lm):
    lm = make_lm("llama")
    ran: list[str] = []
    for name in ("self_attn", "mlp"):
        for k, block in enumerate(lm.model.model.layers):
            block.get_submodule(name).register_forward_hook(lambda *_, at=(k, name): ran.append(at))
    whole = capture_all(lm, forced(lm), ("attn_out", "resid_pre", "z"), spans=("last",), batch_size=3)
    ran.clear()
    part = capture_all(lm, forced(lm), ("attn_out", "resid_pre", "z"), layers=[1, 0], spans=("last",), batch_size=3)
    assert ran == [(0, "self_attn"), (0, "mlp"), (1, "self_attn")]
    for key, a in part.items():
        assert torch.equal(a.h, whole[key].h[:, [1, 0]])


def test_batch_padding_and_solo_agree(arch_lm):
    sequences = forced(arch_lm)
    solo = capture(arch_lm, sequences, span="output", batch_size=1).h
    for padding in ("left", "right"):
        batched = capture(arch_lm, sequences, span="output", batch_size=3, padding=padding).h
        torch.testing.assert_close(batched, solo, atol=2e-5, rtol=0)
    back = capture(arch_lm, sequences[::-1], span="output")
    torch.testing.assert_close(back.h.flip(0), solo, atol=2e-5, rtol=0)
    assert back.ids == ("p2", "p1", "p0")


def test_stop_after_the_last_layer_leaves_later_blocks_unrun_and_the_model_as_it_was(make_lm):
    lm = make_lm("llama")
    ran: list[int] = []
    decoder = lm.model.model.layers
    probes = [block.register_forward_hook(lambda *_, k=k: ran.append(k)) for k, block in enumerate(decoder)]
    whole = capture(lm, forced(lm)).h
    ran.clear()
    part = capture(lm, forced(lm), layers=[1, 0])
    assert set(ran) <= {0, 1} and 0 in ran
    torch.testing.assert_close(part.h, whole[:, [1, 0]], atol=0, rtol=0)
    assert all(len(block._forward_hooks) == 1 for block in decoder)
    for probe in probes:
        probe.remove()


def test_hooks_are_removed_after_an_error(make_lm):
    lm = make_lm("llama")

    def fail(*_):
        raise RuntimeError("boom")

    handle = lm.model.model.layers[2].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="boom"):
        capture(lm, forced(lm))
    handle.remove()
    assert all(not block._forward_hooks and not block._forward_pre_hooks for block in lm.model.model.layers)


def test_reductions(tiny_lm):
    sequences = forced(tiny_lm)
    tokens = capture_tokens(tiny_lm, sequences, span="last", batch_size=2)
    mean = capture(tiny_lm, sequences, span="last", reduction="mean").h
    last = capture(tiny_lm, sequences, span="last", reduction="last").h
    assert [t.shape[1] for t in tokens] == [s.spans["last"][1] - s.spans["last"][0] for s in sequences]
    for i, t in enumerate(tokens):
        torch.testing.assert_close(mean[i], t.mean(1), atol=2e-5, rtol=0)
        torch.testing.assert_close(last[i], t[:, -1], atol=2e-5, rtol=0)


def test_a_hook_that_never_fires_or_fires_twice_is_an_error(tiny_lm):
    def deaf(lm, batch, wanted, visit):
        hooked(lm, batch, wanted[:-1], visit)

    def stuttering(lm, batch, wanted, visit):
        hooked(lm, batch, wanted, visit)
        hooked(lm, batch, wanted[:1], visit)

    with pytest.raises(RuntimeError, match="did not fire"):
        capture(tiny_lm, forced(tiny_lm), backend=deaf)
    with pytest.raises(RuntimeError, match="twice"):
        capture(tiny_lm, forced(tiny_lm), backend=stuttering)


def test_block_that_is_skipped_is_noticed(make_lm):
    lm = make_lm("llama")
    lm.model.model.layers[3].forward = None
    lm.model.config.num_hidden_layers = 3
    with pytest.raises(RuntimeError, match="did not fire"):
        capture(lm, forced(lm))


def test_users_mistakes(tiny_lm, make_lm):
    sequences = forced(tiny_lm)
    with pytest.raises(UserError, match=r"item 0 \(problem 'p0'\).*holds no token"):
        capture(tiny_lm, sequences, span="prefix")
    with pytest.raises(UserError, match=r"layer=4 not in 0\.\.3"):
        capture(tiny_lm, sequences, layers=[4])
    with pytest.raises(UserError, match="twice"):
        capture(tiny_lm, sequences, layers=[1, 1])
    with pytest.raises(UserError, match="no sequences"):
        capture(tiny_lm, [])
    with pytest.raises(UserError, match="span='outptu' not among"):
        capture(tiny_lm, sequences, span="outptu")
    with pytest.raises(UserError, match=r"sites=.* names one twice"):
        capture_all(tiny_lm, sequences, ("z", "z"))
    with pytest.raises(UserError, match=r"spans=.* is empty"):
        capture_all(tiny_lm, sequences, spans=())
    with pytest.raises(UserError, match="batch_size=0 is below 1"):
        capture(tiny_lm, sequences, batch_size=0)
    # While tests run beartype refuses strings that are none of a Literal, hence these.
    with pytest.raises(UserError, match=r"site='resid' is not one of resid_pre, z, .*"):
        check_site("resid")
    with pytest.raises(UserError, match="reduction='max' is not one of mean, last"):
        reductions.get("max")
    with pytest.raises(UserError, match="dtype='int8' is not one of float32, float16, bfloat16"):
        check_dtype("int8")
    with pytest.raises(UserError, match="padding='top' is not left or right"):
        pad([(1, 2)], "top", torch.device("cpu"))
    with pytest.raises(UserError, match="layer=2 not among"):
        capture(tiny_lm, sequences, layers=[1]).at(2)
    lm = make_lm("gpt2")
    lm.model.train()
    with pytest.raises(UserError, match=r"eval\(\)"):
        capture(lm, forced(lm))


def test_resolve_span():
    spans = {"output": (10, 15), "first_divergence": (12, 13), "prefix": (3, 3)}
    assert resolve_span(spans, "output") == (10, 15)
    assert resolve_span(spans, "output[0:2]") == (10, 12)
    assert resolve_span(spans, "output[2:]") == (12, 15)
    assert resolve_span(spans, "output[0:20]") == (10, 15)
    assert resolve_span(spans, "first_divergence") == (12, 13)
    for name in ("prefix", "output[5:6]", "output[2:2]"):
        with pytest.raises(UserError, match="no token"):
            resolve_span(spans, name)


def test_tokens_behind_the_span_are_not_seen(tiny_lm):
    s = forced(tiny_lm)[0]
    other = Sequence((*s.ids[:-2], 30, 31), s.spans, s.problem)
    a, b = (capture(tiny_lm, [x], span="prompt_last").h for x in (s, other))
    assert torch.equal(a, b)


def test_model_is_untouched_by_a_capture(make_lm):
    lm = make_lm("gpt_neox")
    before = copy.deepcopy(lm.model.state_dict())
    ids = torch.tensor([forced(lm)[0].ids])
    with torch.no_grad():
        logits = lm.model(ids).logits
        capture(lm, forced(lm))
        assert torch.equal(lm.model(ids).logits, logits)
    assert all(torch.equal(w, before[k]) for k, w in lm.model.state_dict().items())
