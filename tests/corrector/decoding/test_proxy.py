"""Proxy-tuning against three plain models, token for token."""

import pytest
import torch
from transformers import DynamicCache

from corrector.decoding import decode
from corrector.decoding.proxy import proxy
from corrector.errors import UserError
from corrector.models import LanguageModel

TEXTS = [" Tom has 12 apples.", "Ann gives the coins so", " how many 7 does Mia finds"]


@pytest.fixture(params=["llama", "gpt2", "qwen2"])
def members(request, make_lm) -> list[LanguageModel]:
    """A base and two smaller models of another depth."""
    return [make_lm(request.param, n_layers=n, seed=s) for s, n in enumerate((4, 2, 3))]


def slow(members: list[LanguageModel], ids: list[int], alpha: float) -> torch.Tensor:
    """The next token's combined logits, each model alone, one row, no cache."""
    with torch.no_grad():
        base, expert, anti = (m.model(torch.tensor([ids]), use_cache=False).logits[0, -1] for m in members)
    return base + alpha * (expert - anti)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_greedy_tokens_are_those_of_three_models_run_apart(members, alpha):
    lm = proxy(*members, alpha=alpha)
    prompts = [lm.encode_upstream(t.strip(), "") for t in TEXTS]
    outputs = decode(lm, prompts, max_new_tokens=12)
    plain = decode(members[0], prompts, max_new_tokens=12)
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = list(prompt.ids)
        for token in (*output.ids, *[lm.eos_id] * output.ended):
            assert int(slow(members, ids, alpha).argmax()) == token
            ids.append(token)
        assert output.ended or len(output.ids) == 12
    assert outputs != plain, "the experts change something"


def test_logits_with_one_combined_cache_are_those_without(members):
    lm = proxy(*members, alpha=0.7)
    ids = torch.tensor([lm.tokenizer(t)["input_ids"][:5] for t in TEXTS])
    cache = DynamicCache(config=lm.model.config)
    assert len(cache.layers) == lm.n_layers == 4 + 2 + 3
    with torch.no_grad():
        steps = [
            lm.model(
                input_ids=ids[:, i : i + 1], past_key_values=cache, use_cache=True, position_ids=torch.full((3, 1), i)
            ).logits[:, 0]
            for i in range(ids.shape[1])
        ]
        whole = lm.model(input_ids=ids, use_cache=False).logits
        kept = lm.model(input_ids=ids, use_cache=False, logits_to_keep=2).logits
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kept, whole[:, -2:])
    for row in range(3):
        torch.testing.assert_close(whole[row, -1], slow(members, ids[row].tolist(), 0.7), rtol=1e-4, atol=1e-4)


def test_rows_leave_the_combined_cache_of_all_three(members):
    lm = proxy(*members)
    ids = torch.tensor([lm.tokenizer(t)["input_ids"][:5] for t in TEXTS])
    cache = DynamicCache(config=lm.model.config)
    index = torch.tensor([2, 0])
    at = torch.full((2, 1), 4)
    with torch.no_grad():
        lm.model(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
        cache.batch_select_indices(index)
        got = lm.model(input_ids=ids[index, 4:], past_key_values=cache, use_cache=True, position_ids=at).logits[:, -1]
    for row, logits in zip(index.tolist(), got, strict=True):
        torch.testing.assert_close(logits, slow(members, ids[row].tolist(), 1.0), rtol=1e-4, atol=1e-4)


def test_alpha_zero_and_equal_experts_are_the_base(members):
    base, expert, anti = members
    ids = torch.tensor([base.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        wanted = base.model(input_ids=ids).logits
        assert torch.equal(proxy(base, expert, anti, alpha=0.0).model(input_ids=ids).logits, wanted)
        assert torch.equal(proxy(base, anti, anti).model(input_ids=ids).logits, wanted)


def test_it_is_named_and_fingerprinted_by_all_three(members):
    base, expert, anti = members
    lm, turned = proxy(base, expert, anti), proxy(base, anti, expert)
    assert lm.fingerprint != turned.fingerprint != base.fingerprint
    assert lm.ref == f"{base.ref} + 1 ({expert.ref} - {anti.ref})" and not lm.model.training
    assert base.model.config.num_hidden_layers == 4, "the base is left as it was"


def test_another_vocabulary_is_refused(make_lm):
    base, other = make_lm(), make_lm(texts=["zebra"])
    with pytest.raises(UserError, match=r"antiexpert .* has another vocabulary .* train it on the same --task"):
        proxy(base, base, other)


def test_another_attention_is_refused(make_lm):
    base, other = make_lm(), make_lm()
    other.model.set_attn_implementation("sdpa")
    with pytest.raises(UserError, match=r"expert .* has _attn_implementation='sdpa'.*'eager'"):
        proxy(base, other, base)
