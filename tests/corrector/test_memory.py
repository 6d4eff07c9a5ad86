import pytest
import torch

from corrector.memory import estimate, free, gigabytes


def test_the_estimate_counts_the_weights_and_the_cache_that_decoding_fills(arch_lm):
    model, batch, length = arch_lm.model, 3, 20
    need = estimate(model.config, torch.float32, batch, length)
    assert need.parameters == sum(w.numel() for w in model.parameters()) and need.weights == 4 * need.parameters
    ids = torch.randint(5, 50, (batch, length))
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
    held = sum(x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values))
    assert need.cache == held and need.logits == batch * model.config.vocab_size * 4
    assert need.total == need.weights + need.cache + need.logits


def test_precision_halves_and_quantisation_shrinks_the_weights(tiny_lm):
    config = tiny_lm.model.config
    full, half = (estimate(config, dtype, 1, 8) for dtype in (torch.float32, torch.bfloat16))
    assert (half.weights, half.cache) == (full.weights // 2, full.cache // 2)
    four = estimate(config, torch.bfloat16, 1, 8, "4bit")
    assert four.weights == full.parameters // 2 and four.cache == half.cache


@pytest.mark.parametrize(("n", "text"), [(0, "0.0 MB"), (1_500_000, "1.5 MB"), (16_060_000_000, "16.1 GB")])
def test_bytes_as_text(n, text):
    assert gigabytes(n) == text


def test_this_machine_has_memory():
    assert free("cpu") > 1e8
