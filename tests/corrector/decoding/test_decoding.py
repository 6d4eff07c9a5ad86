"""The decoder against Hugging Face `generate`, and its invariance to batch, order and padding."""

import random
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from corrector.decoding import decode
from corrector.decoding.scoring import kl_per_token, target_logprobs
from corrector.errors import UserError
from steering.interventions import Intervention

SENTENCES = ["Tom has 12 apples.", "Ann buys 3 bags of 4 coins.", "Mia eats 2 apples, so she has 10.", "it is 7."]


def make_prompts(lm, n=8):
    rng = random.Random(0)
    return [
        lm.encode(
            "how many apples has Tom?", " ".join(rng.choices(SENTENCES, k=rng.randint(0, 3))), rng.choice(SENTENCES)
        )
        for _ in range(n)
    ]


def hf_greedy(lm, prompt, n):
    out = lm.model.generate(
        torch.tensor([prompt.ids]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=n,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=lm.eos_id,
    )[0, len(prompt) :].tolist()
    ended = out[-1] == lm.eos_id
    return tuple(out[:-1] if ended else out), ended


def with_eos(lm, prompts):
    """The same model with another end token: one that some rows write within 12 tokens and others do not."""
    rows = [set(o.ids) for o in decode(lm, prompts, max_new_tokens=12)]
    token = max(set.union(*rows), key=lambda t: min(n := sum(t in row for row in rows), len(rows) - n))
    return type(lm)(lm.model, SimpleNamespace(eos_token_id=token), lm.template, lm.ref)


def test_greedy_equals_generate_and_solo_and_any_order(arch_lm):
    prompts = make_prompts(arch_lm)
    lm = with_eos(arch_lm, prompts)
    wanted = [hf_greedy(lm, p, 12) for p in prompts]
    assert len({ended for _, ended in wanted}) == 2, "some rows must end early, others not"
    got = decode(lm, prompts, max_new_tokens=12)
    assert [(o.ids, o.ended) for o in got] == wanted
    assert decode(lm, prompts, max_new_tokens=12, batch_size=1) == got
    assert decode(lm, prompts, max_new_tokens=12, batch_size=3) == got
    order = random.Random(1).sample(range(len(prompts)), len(prompts))
    shuffled = decode(lm, [prompts[i] for i in order], max_new_tokens=12, batch_size=3)
    assert shuffled == [got[i] for i in order]


def test_sampling_depends_on_the_seed_of_the_row_alone(tiny_lm):
    prompts = [make_prompts(tiny_lm)[0]] * 6
    seeds = [1, 2, 3, 4, 5, 1]
    whole = decode(tiny_lm, prompts, max_new_tokens=6, temperature=20.0, seeds=seeds)
    assert whole[0] == whole[5]
    assert len({o.ids for o in whole}) == 5
    solo = decode(tiny_lm, prompts[:3], max_new_tokens=6, temperature=20.0, seeds=[5, 3, 1], batch_size=2)
    assert solo == [whole[4], whole[2], whole[0]]


def test_sampling_follows_the_softmax(tiny_lm):
    prompt, temperature, n = make_prompts(tiny_lm)[0], 1.0, 400
    got = decode(tiny_lm, [prompt] * n, max_new_tokens=1, temperature=temperature, seeds=list(range(n)), batch_size=200)
    first = torch.tensor([o.ids[0] if o.ids else tiny_lm.eos_id for o in got])
    with torch.no_grad():
        p = (tiny_lm.model(torch.tensor([prompt.ids])).logits[0, -1] / temperature).softmax(-1)
    counts = torch.bincount(first, minlength=len(p)) / n
    likely = p > 0.01
    assert (counts - p)[likely].abs().max() < 4 * (0.25 / n) ** 0.5
    assert abs(counts[likely].sum() - p[likely].sum()) < 0.1


def test_stop_ends_a_row_with_its_newest_token(tiny_lm):
    prompts = make_prompts(tiny_lm)
    free = decode(tiny_lm, prompts, max_new_tokens=9)
    got = decode(tiny_lm, prompts, max_new_tokens=9, stop=lambda ids: len(ids) >= 4)
    assert [o.ids for o in got] == [o.ids[:4] for o in free]


class Blind(Intervention):
    """An intervention whose hooks never reach the model."""

    def attach(self, model):
        return nullcontext()


def test_hooks_that_never_fire_raise(tiny_lm):
    prompts = make_prompts(tiny_lm, 3)
    with pytest.raises(RuntimeError, match="applied 0 times where 1 were due"):
        decode(tiny_lm, prompts, max_new_tokens=2, steering=Blind(torch.ones(1, 1, 32), [1], [0] * 3, [1.0] * 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 2, "temperature": 1.0}, "got none for 2 prompts"),
        ({"max_new_tokens": 2, "temperature": -1.0}, "temperature=-1.0"),
        ({"max_new_tokens": 2, "batch_size": 0}, "batch_size=0"),
        ({"max_new_tokens": 5000}, "exceed the 512 positions"),
    ],
)
def test_mistakes_are_named(tiny_lm, options, said):
    with pytest.raises(UserError, match=said):
        decode(tiny_lm, make_prompts(tiny_lm, 2), **options)


def test_nan_logits_are_no_output(make_lm):
    lm = make_lm()
    with torch.no_grad():
        lm.model.lm_head.weight[3] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        decode(lm, make_prompts(lm, 2), max_new_tokens=2)


def test_no_prompts_give_no_outputs(tiny_lm):
    assert decode(tiny_lm, [], max_new_tokens=2) == []


def test_logprobs_equal_a_plain_forward(arch_lm):
    prompts = make_prompts(arch_lm, 5)
    targets = [arch_lm.encode_target(s) for s in [*SENTENCES, "Tom has 2."]]
    got = target_logprobs(arch_lm, prompts, targets, batch_size=3)
    for prompt, target, scores in zip(prompts, targets, got, strict=True):
        ids = torch.tensor([[*prompt.ids, *target]])
        with torch.no_grad():
            log_p = arch_lm.model(ids).logits[0].double().log_softmax(-1)
        wanted = log_p[len(prompt) - 1 : -1].gather(1, torch.tensor(target)[:, None])[:, 0]
        assert torch.allclose(scores, wanted, atol=2e-4)


def test_kl_is_exactly_zero_at_coefficient_zero_and_positive_elsewhere(arch_lm):
    prompts = make_prompts(arch_lm, 4)
    targets = [arch_lm.encode_target(s) for s in SENTENCES]
    bank = torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0))
    steering = Intervention(bank, [1, 2], [0] * 4, [0.0, 5.0, 0.0, -5.0], span="prompt_last+output")
    kl = kl_per_token(arch_lm, prompts, targets, steering)
    assert kl[0] == kl[2] == 0.0
    assert min(kl[1], kl[3]) > 1e-3
    plain, steered = (target_logprobs(arch_lm, prompts, targets, s) for s in (None, steering))
    assert torch.equal(plain[0], steered[0])
    assert not torch.allclose(plain[1], steered[1])


def test_scoring_refuses_empty_targets(tiny_lm):
    with pytest.raises(UserError, match="target 1 is empty"):
        target_logprobs(tiny_lm, make_prompts(tiny_lm, 2), [[5], []])
