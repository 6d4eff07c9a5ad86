import copy

import pytest
import torch

from corrector.errors import UserError
from corrector.tasks.base import Pair
from probes.capture import capture, capture_all, capture_tokens, hooked, sequence
from probes.sites import SITES
from probes.spans import Sequence, resolve_span

PAIRS = [
    Pair("p0", "Tom has 3 pens", "", "he has 5 coins", "he has 6 coins"),
    Pair("p1", "Ann buys 12 apples", "she has 4.", "so Ann has 16", "so Ann has 16"),
    Pair("p2", "Mia sells 7 bags of coins", "Mia has 1 more. she gets 22 apples", "no", "she has 9 apples in all"),
]


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
