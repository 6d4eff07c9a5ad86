import gc
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch

from corrector.errors import UserError
from corrector.models import blocks
from probes import backends
from probes.backends import bridge, copies, pad, traces
from probes.capture import capture, capture_all, capture_tokens, sequence
from probes.sites import SITES
from tests.probes.test_capture import PAIRS

LIBRARIES = ("transformer_lens", "nnsight")
TOLERANCE = {"atol": 2e-5, "rtol": 0}


def forced(lm):
    return [sequence(lm, p, p.correction) for p in PAIRS]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_backends_read_the_same_at_every_site_layer_and_token(arch_lm, padding):
    sequences = forced(arch_lm)
    read = partial(
        capture_all, arch_lm, sequences, SITES, spans=("prompt", "prompt_last"), padding=padding, batch_size=2
    )
    reference = read(backend="torch")
    for name in LIBRARIES:
        for key, got in read(backend=name).items():
            torch.testing.assert_close(got.h, reference[key].h, **TOLERANCE, msg=lambda m, at=(name, key): f"{at}: {m}")
    assert reference["z", "prompt"].h.shape == (3, 4, 32)


@pytest.mark.parametrize("name", LIBRARIES)
def test_single_tokens_agree_and_a_row_alone_is_as_in_its_batch(arch_lm, name):
    sequences = forced(arch_lm)
    reference = capture_tokens(arch_lm, sequences, "z", layers=[2, 0], span="output", batch_size=3)
    batched = capture_tokens(arch_lm, sequences, "z", layers=[2, 0], span="output", padding="left", backend=name)
    solo = capture_tokens(arch_lm, sequences, "z", layers=[2, 0], span="output", batch_size=1, backend=name)
    for a, b, c in zip(reference, batched, solo, strict=True):
        torch.testing.assert_close(b, a, **TOLERANCE)
        torch.testing.assert_close(c, a, **TOLERANCE)


def test_the_model_stays_as_it_was(arch_lm, make_lm, tmp_path):
    fresh = make_lm(arch_lm.ref.removeprefix("random-"))
    for name in LIBRARIES:
        capture(arch_lm, forced(arch_lm), backend=name)
    before, after = fresh.model.state_dict(), arch_lm.model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], before[k]) for k in before)
    assert [(n, type(m)) for n, m in arch_lm.model.named_modules()] == [
        (n, type(m)) for n, m in fresh.model.named_modules()
    ]
    assert all("forward" not in vars(m) for m in arch_lm.model.modules())
    assert arch_lm.model.config._attn_implementation == fresh.model.config._attn_implementation
    assert arch_lm.tokenizer.padding_side == fresh.tokenizer.padding_side
    ids = torch.tensor([forced(arch_lm)[0].ids])
    with torch.no_grad():
        assert torch.equal(arch_lm.model(ids).logits, fresh.model(ids).logits)
    arch_lm.model.save_pretrained(tmp_path)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])  # of GPT-2 TransformerLens keeps split copies of some weights
def test_a_wrapper_is_kept_follows_the_weights_and_dies_with_the_model(make_lm, arch):
    lm = make_lm(arch)
    sequences = forced(lm)
    made = [wrappers.of(lm) for wrappers in (bridge._BRIDGES, traces._LOCAL)]
    assert [wrappers.of(lm) for wrappers in (bridge._BRIDGES, traces._LOCAL)] == made
    if arch == "llama":
        own = {w.data_ptr() for w in lm.model.parameters()}
        assert {w.data_ptr() for w in made[0].original_model.parameters()} == own  # no second copy of the weights
    first = capture(lm, sequences)
    with torch.no_grad():
        for w in blocks(lm.model)[1].parameters():
            w.mul_(0.5)
    changed = capture(lm, sequences)
    assert not torch.allclose(first.h, changed.h, atol=1e-2)
    for name in LIBRARIES:
        torch.testing.assert_close(capture(lm, sequences, backend=name).h, changed.h, **TOLERANCE)
    model = weakref.ref(lm.model)
    del lm, made, w
    gc.collect()
    assert model() is None


def test_hooks_that_a_copy_would_not_run_are_refused(make_lm):
    lm = make_lm("llama")
    with torch.no_grad():
        lm.model(torch.tensor([[5, 6]]), output_hidden_states=True)  # leaves transformers' own hooks behind
    plain = capture(lm, forced(lm), backend="nnsight")
    handle = lm.model.model.layers[0].register_forward_hook(lambda m, a, out: out + 1)
    for name in LIBRARIES:
        with pytest.raises(UserError, match=rf"hook on 'model\.layers\.0'.*{name}.*steering block") as error:
            capture(lm, forced(lm), backend=name)
        assert "\n" not in str(error.value)
    assert not torch.allclose(capture(lm, forced(lm)).h, plain.h, atol=0.1)
    handle.remove()
    for name in LIBRARIES:
        torch.testing.assert_close(capture(lm, forced(lm), backend=name).h, plain.h, **TOLERANCE)


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_forward_stops_behind_the_last_layer(make_lm, monkeypatch, name):
    lm = make_lm("llama")
    mlp = type(lm.model.model.layers[0].mlp)
    ran: list[int] = []
    forward = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda self, x: (ran.append(1), forward(self, x))[1])
    part = capture(lm, forced(lm), layers=[1], backend=name)
    assert len(ran) == 2
    assert torch.allclose(part.h, capture(lm, forced(lm), layers=[1]).h, **TOLERANCE)


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_is_never_reached_or_refused_while_reading_is_an_error_and_leaves_the_backend_usable(make_lm, name):
    lm = make_lm("llama")
    run = backends.get(name)
    batch = pad([(5, 6, 7)], "right", lm.device)

    def refuse(site, layer, h):
        raise LookupError(f"{site} {layer}")

    with pytest.raises(LookupError, match="resid_post 1"):
        run(lm, batch, [("resid_post", 1)], refuse)
    short = make_lm("llama")
    short.model.config.num_hidden_layers = 3
    with pytest.raises(Exception, match=r"did not fire|already ran past"):
        capture(short, forced(short), backend=name)
    torch.testing.assert_close(capture(lm, forced(lm), backend=name).h, capture(lm, forced(lm)).h, **TOLERANCE)


def test_nnsight_from_several_threads(tiny_lm):
    expected = capture(tiny_lm, forced(tiny_lm), batch_size=1).h
    got: dict[int, torch.Tensor] = {}

    def work(i):
        got[i] = capture(tiny_lm, forced(tiny_lm), batch_size=1, backend="nnsight").h

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [0, 1, 2]
    for h in got.values():
        torch.testing.assert_close(h, expected, **TOLERANCE)


def test_names(tiny_lm):
    def own(lm, batch, wanted, visit):
        backends.get("torch")(lm, batch, wanted, visit)

    assert backends.get(own) is own
    assert torch.equal(capture(tiny_lm, forced(tiny_lm), backend=own).h, capture(tiny_lm, forced(tiny_lm)).h)
    assert backends.backend_name("nnsight") == "nnsight" and backends.backend_name(own).endswith("own")
    assert backends.backend_name(partial(traces.traced, remote=True)) == "traced"
    with pytest.raises(UserError, match="backend='jax' is not one of torch, transformer_lens, nnsight"):
        capture(tiny_lm, forced(tiny_lm), backend="jax")
    with pytest.raises(UserError, match="remote=True is for backend='nnsight'"):
        backends.get("torch", remote=True)


def test_remote_is_refused_for_what_is_not_on_the_hub(tiny_lm, tmp_path):
    remote = backends.get("nnsight", remote=True)
    for ref, kind in (
        (str(tmp_path), "a local folder"),
        ("random-llama", "an in-memory model"),
        ("dialogue", "a shipped reference"),
    ):
        with pytest.raises(UserError, match=f"{kind}.*load the model by its hub id") as error:
            capture(replace(tiny_lm, ref=ref), forced(tiny_lm), backend=remote)
        assert "\n" not in str(error.value)


def test_a_model_loaded_by_its_hub_id_may_run_remotely(make_lm):
    lm = make_lm("llama")
    lm.model.config._name_or_path = lm.model.name_or_path = "org/model"
    traces.check_remote(replace(lm, ref="org/model"))
    with pytest.raises(UserError, match="in-memory"):
        traces.check_remote(replace(lm, ref="org/other"))


def test_the_remote_trace_carries_all_it_needs(tiny_lm):
    """Nnsight's dry run serialises the trace and hides our modules while reading it back, as NDIF has none."""
    batch = pad([(5, 6, 7), (8, 9)], "left", tiny_lm.device)
    wanted = [(site, layer) for layer in (0, 2) for site in SITES]
    expected: dict = {}
    backends.get("torch")(tiny_lm, batch, wanted, lambda site, layer, h: expected.update({(site, layer): h.clone()}))
    model = traces._LOCAL.of(tiny_lm)
    with torch.no_grad():
        values = traces.collect(model, batch, traces.locate(model, tiny_lm, wanted), remote="local")
    for point, value in zip(wanted, values, strict=True):
        value = value[0] if isinstance(value, tuple) else value
        torch.testing.assert_close(value[batch.mask], expected[point][batch.mask], **TOLERANCE)


def test_libraries_are_imported_on_first_use_only():
    code = "import sys, probes.capture, probes.storage; print({'transformer_lens', 'nnsight'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_copies_share_weights_and_nothing_else(tiny_lm):
    copy = copies.sharing_copy(tiny_lm.model)
    assert {id(w) for w in copy.parameters()} == {id(w) for w in tiny_lm.model.parameters()}
    assert not {id(m) for m in copy.modules()} & {id(m) for m in tiny_lm.model.modules()}
    assert copy.config is not tiny_lm.model.config
