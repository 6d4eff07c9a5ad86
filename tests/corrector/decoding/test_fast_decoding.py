"""The fast decoder against plain decoding: every trick, alone and together, changes no token and no count."""

import random
from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.decoding import PLAIN, Decoder, Job, Tricks, decode, left_pad
from corrector.decoding import fitness as fitness_module
from corrector.decoding.drafts import REMEMBERED, Draft, Habit, Policy
from corrector.decoding.fitness import unfit
from corrector.decoding.prefixes import common
from corrector.decoding.scoring import target_logprobs
from steering.interventions import Gate, Intervention, steer
from tests.corrector.decoding.test_decoding import make_prompts, with_eos

N = 14
SPANS = ("prompt_last", "prompt_last+output", "output", "last", "all", "question+output[1:3]")
EACH = [replace(PLAIN, **{f.name: True}) for f in fields(Tricks)]


def steering(n=N, span="prompt_last", layers=(1,), scale=4.0, **more):
    bank = torch.randn(3, len(layers), 32, generator=torch.Generator().manual_seed(1))
    coef = [None if i % 5 == 4 else scale * (i % 4 - 1.5) for i in range(n)]
    return Intervention(bank, layers, [i % 3 for i in range(n)], coef, span=span, **more)


def drafts_of(outputs, lm, seed=0):
    """Right drafts, drafts with an error, and drafts that have nothing to do with the output."""
    rng = random.Random(seed)
    out = []
    for i, o in enumerate(outputs):
        ids = [*o.ids, lm.eos_id]
        if i % 3 == 1:
            ids[rng.randrange(len(ids))] = rng.randrange(7, 200)
        out.append(ids if i % 3 < 2 else [rng.randrange(7, 200) for _ in ids])
    return out


@pytest.mark.parametrize("span", SPANS)
def test_steered_tokens_and_counts_are_those_of_plain_decoding(arch_lm, span):
    prompts = make_prompts(arch_lm, N)
    prompts[3] = prompts[1]
    lm = with_eos(arch_lm, prompts)
    wanted = decode(lm, prompts, max_new_tokens=10, steering=steering(span=span), tricks=PLAIN)
    free = decode(lm, prompts, max_new_tokens=10, tricks=PLAIN)
    assert wanted != free, "the steering must show"
    for batch_size in (1, 3, 32):
        got = decode(
            lm,
            prompts,
            max_new_tokens=10,
            steering=steering(span=span),
            drafts=drafts_of(free, lm),
            batch_size=batch_size,
        )
        assert got == wanted


@pytest.mark.parametrize("span", ["prompt_last", "prompt_last+output"])
def test_steered_tokens_are_those_of_hf_generate_with_hooks(arch_lm, span):
    """Left-padded `generate` of transformers under `steer`, at batch 1, 8 and 32, end tokens and all."""
    prompts = make_prompts(arch_lm, 32)
    lm = with_eos(arch_lm, prompts)
    v = {1: torch.randn(32, generator=torch.Generator().manual_seed(8))}
    coefs = [3.0 * (i % 4 - 1.5) for i in range(32)]
    ids, mask, _ = left_pad([p.ids for p in prompts], lm)
    with steer(lm.model, v, coefs, [1], span=span):
        out = lm.model.generate(
            ids, attention_mask=mask.long(), max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=lm.eos_id
        )[:, ids.shape[1] :].tolist()
    wanted = [tuple(row[: row.index(lm.eos_id)]) if lm.eos_id in row else tuple(row) for row in out]
    assert any(lm.eos_id in row for row in out)
    for batch_size in (1, 8, 32):
        steering = Intervention.of(v, coefs, [1], span=span)
        got = decode(lm, prompts, max_new_tokens=8, steering=steering, batch_size=batch_size)
        assert [o.ids for o in got] == wanted


@pytest.mark.parametrize("tricks", [*EACH, PLAIN, Tricks()], ids=str)
def test_each_trick_alone_changes_nothing(tiny_lm, tricks):
    prompts = make_prompts(tiny_lm, 5) * 3
    lm = with_eos(tiny_lm, prompts)
    drafts = drafts_of(decode(lm, prompts, max_new_tokens=10, tricks=PLAIN), lm)
    options = {"max_new_tokens": 10, "batch_size": 4, "drafts": drafts}
    wanted = decode(lm, prompts, **options, steering=steering(15, layers=(1, 2)), tricks=PLAIN)
    assert decode(lm, prompts, **options, steering=steering(15, layers=(1, 2)), tricks=tricks) == wanted


@pytest.mark.parametrize("when", ["prompt_last", "token"])
@pytest.mark.parametrize("site", ["resid_post", "mlp_out"])
def test_gates_and_sites_are_those_of_plain_decoding(tiny_lm, when, site):
    prompts = make_prompts(tiny_lm, N)
    v = torch.randn(32, generator=torch.Generator().manual_seed(3))
    gate = Gate(v, layer=0, threshold=0.3, when=when)
    span = "prompt_last+output"
    free = decode(tiny_lm, prompts, max_new_tokens=8)
    options = {"max_new_tokens": 8, "drafts": drafts_of(free, tiny_lm), "batch_size": 6}
    make = lambda: steering(span=span, layers=(1, 3), gate=gate, site=site)  # noqa: E731
    wanted = decode(tiny_lm, prompts, **options, steering=make(), tricks=PLAIN)
    applied = {o.applied for o in wanted}
    assert 0 in applied and len(applied) > 1, "the gate must open for some and stay closed for others"
    assert decode(tiny_lm, prompts, **options, steering=make()) == wanted


def test_logits_of_a_draft_are_those_of_teacher_forcing(arch_lm):
    prompts = make_prompts(arch_lm, 6) * 2
    targets = [
        arch_lm.encode_target(t) for t in ("Tom has 2.", "it is 7.", "no", "Ann has 10 apples.", "yes", "it")
    ] * 2
    found = {}
    decode(
        arch_lm,
        prompts,
        max_new_tokens=9,
        steering=steering(12, span="prompt_last+output", layers=(1, 2)),
        drafts=targets,
        on_draft=lambda i, logits: found.__setitem__(i, logits.double().log_softmax(-1)),
        batch_size=5,
    )
    wanted = target_logprobs(arch_lm, prompts, targets, steering(12, span="prompt_last+output", layers=(1, 2)))
    assert sorted(found) == list(range(12))
    for i, target in enumerate(targets):
        got = found[i].gather(1, torch.tensor(target)[:, None])[:, 0]
        assert torch.allclose(got, wanted[i], atol=2e-4)


def test_shared_prompts_and_blocks_are_fed_once(tiny_lm):
    prompts = [p for p in make_prompts(tiny_lm, 3) for _ in range(8)]
    draft = tiny_lm.encode_target("Tom has 2 apples.")
    fed, ran = {}, Counter()
    for tricks in (Tricks(), Tricks(shared=False)):
        # block 0 runs only where it is not replaced by what it gave before
        handle = tiny_lm.model.model.layers[0].self_attn.register_forward_hook(
            lambda *_, t=tricks: ran.update({t.shared: 1})
        )
        decoder = Decoder(tiny_lm, steering(24, layers=(2,)), batch_size=24, tricks=tricks)
        for i, p in enumerate(prompts):
            decoder.submit(Job(p, 1, i, tuple(draft), lambda _: None))
        with decoder.running():
            while decoder.load:
                decoder.step()
        handle.remove()
        fed[tricks.shared] = decoder.fed
    assert ran[True] < ran[False] or fed[True] < fed[False] / 2
    assert fed[True] < sum(map(len, prompts)) + 24 * len(draft) < fed[False] + 1


def test_the_forwards_of_blocks_come_back_also_after_an_error(tiny_lm):
    prompts = [make_prompts(tiny_lm, 1)[0]] * 2
    before = [block.__dict__.get("forward") for block in tiny_lm.model.model.layers]

    def fail(i, logits):
        raise KeyError(i)

    options = {"max_new_tokens": 3, "drafts": [[9, 10, 11]] * 2}
    with pytest.raises(KeyError):
        decode(tiny_lm, prompts, **options, steering=steering(2, layers=(2,)), on_draft=fail)
    assert [block.__dict__.get("forward") for block in tiny_lm.model.model.layers] == before
    plain = decode(tiny_lm, prompts, **options, tricks=PLAIN)
    assert decode(tiny_lm, prompts, **options) == plain


@pytest.mark.parametrize("span", ["prompt_last", "all", "question"])
def test_a_session_keeps_its_prefix_and_nothing_else(tiny_lm, span):
    """Prompts that grow, shrink and change in the middle, unsteered and steered."""
    sentences = ["Tom has 12 apples.", "it is 7.", "Ann buys 3 bags.", "no"]
    prompts = [
        tiny_lm.encode("how many?", prefix, last)
        for prefix, last in [
            ("", sentences[0]),
            (sentences[0], sentences[1]),
            (" ".join(sentences[:2]), sentences[2]),
            (sentences[1], sentences[0]),
            (sentences[1], sentences[0]),
        ]
    ]
    for active in (False, True):
        wanted = decode(
            tiny_lm, prompts, max_new_tokens=6, steering=steering(5, span, (0, 2)) if active else None, tricks=PLAIN
        )
        decoder = Decoder(tiny_lm, steering(5, span, (0, 2)) if active else None)
        got, fed = [], []
        with decoder.running():
            for i, prompt in enumerate(prompts):
                decoder.submit(Job(prompt, 6, i if active else -1, session="s"))
                before = decoder.fed
                while decoder.load:
                    got += [output for _, output in decoder.step()]
                fed.append(decoder.fed - before)
        assert got == wanted
        if not active:
            # the same prompt again: only its last token is fed anew
            assert fed[4] - len(wanted[4].ids) <= 1
            assert fed[1] < len(prompts[1]) + 6


def test_rows_take_the_places_of_finished_ones(tiny_lm):
    prompts = make_prompts(tiny_lm, 12)
    budget = [1, 9, 2, 8, 3, 7, 4, 6, 5, 1, 2, 3]
    wanted = [decode(tiny_lm, [p], max_new_tokens=n)[0] for p, n in zip(prompts, budget, strict=True)]
    forwards = {}
    for continuous in (True, False):
        decoder = Decoder(tiny_lm, batch_size=4, tricks=replace(PLAIN, continuous=continuous))
        for i, (p, n) in enumerate(zip(prompts, budget, strict=True)):
            decoder.submit(Job(p, n, tag=i))
        got = {}
        with decoder.running():
            while decoder.load:
                got |= {job.tag: output for job, output in decoder.step()}
        assert [got[i] for i in range(12)] == wanted
        forwards[continuous] = decoder.forwards
    assert forwards[True] < forwards[False]


def test_sampling_is_the_same_with_every_trick(tiny_lm):
    prompts = make_prompts(tiny_lm, 8)
    options = {"max_new_tokens": 8, "temperature": 3.0, "seeds": list(range(8)), "stop": lambda ids: ids[-1] % 11 == 0}
    wanted = decode(tiny_lm, prompts, **options, tricks=PLAIN)
    assert len({len(o.ids) for o in wanted}) > 1
    got = decode(tiny_lm, prompts, **options, drafts=drafts_of(wanted, tiny_lm), batch_size=3)
    assert got == wanted


def test_sliding_windows_shorter_than_the_prompt(make_lm):
    lm = make_lm("gemma2")
    lm.model.config.sliding_window = 8
    prompts = make_prompts(lm, 6)
    fresh = make_lm("gemma2")
    wide = decode(fresh, prompts, max_new_tokens=6, tricks=PLAIN)
    wanted = []
    for p in prompts:  # no cache at all: the library's own masks
        ids = list(p.ids)
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        wanted.append(tuple(ids[len(p) :]))
    assert [o.ids for o in wide] != wanted, "the window must matter"
    got = decode(lm, prompts, max_new_tokens=6, batch_size=4, drafts=[(*w, 5) for w in wanted])
    for o, w in zip(got, wanted, strict=True):
        assert o.ids == w if not o.ended else (*o.ids, lm.eos_id) == w[: len(o.ids) + 1]


def test_a_model_that_reads_its_masks_otherwise_is_decoded_plainly_and_said(make_lm, monkeypatch):
    lm = make_lm()
    wanted = decode(lm, make_prompts(lm, 3), max_new_tokens=4)
    bad = make_lm()
    inner = bad.model.model.forward

    def blind(*args, attention_mask=None, **kwargs):
        return inner(
            *args,
            attention_mask=None if attention_mask is None or attention_mask.ndim == 4 else attention_mask,
            **kwargs,
        )

    monkeypatch.setattr(bad.model.model, "forward", blind)
    assert "off by" in unfit(bad) or "refuses" in unfit(bad)
    with pytest.warns(UserWarning, match="decoding plainly"):
        assert decode(bad, make_prompts(bad, 3), max_new_tokens=4) == wanted
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="on_draft"):
        decode(bad, make_prompts(bad, 1), max_new_tokens=4, drafts=[[5]], on_draft=lambda *_: None)


def test_half_precision_is_decoded(make_lm):
    lm = make_lm()
    lm.model.to(torch.bfloat16)
    assert unfit(lm) == ""
    prompts = make_prompts(lm, 6)
    fast, plain = (decode(lm, prompts, max_new_tokens=6, tricks=t) for t in (Tricks(), PLAIN))
    assert sum(a == b for a, b in zip(fast, plain, strict=True)) >= 5, "near ties may flip, no more"


def test_fitness_is_tried_once_a_model(make_lm, monkeypatch):
    lm, tries = make_lm(), []
    original = fitness_module._try
    monkeypatch.setattr(fitness_module, "_try", lambda lm: tries.append(1) or original(lm))
    assert unfit(lm) == unfit(lm) == "" and len(tries) == 1


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_draft_offers_only_what_follows_in_its_source(source, written):
    draft = Draft(source)
    for i in range(len(written)):
        draft.follow(written[i - 1] if i else None, written[i])
        ahead = draft.next(4)
        at = draft.at
        assert tuple(source[at : at + 4]) == ahead
        if written[i] in source and at <= len(source):
            assert source[at - 1] == written[i]


def test_a_draft_is_taken_up_behind_a_change():
    source = (1, 2, 3, 4, 5, 6)
    draft = Draft(source)
    for before, token in ((None, 1), (1, 2), (2, 9)):
        draft.follow(before, token)
    assert draft.next(2) == (4, 5), "9 stands in the place of 3"
    draft.follow(9, 5)
    assert draft.next(2) == (6,), "found again behind 5"


def test_habit_gives_what_followed_the_same_tokens_last():
    habit = Habit()
    assert habit.next((1, 2, 3), 4) == ()
    habit.learn((9, 1, 2, 3), (4, 5, 6))
    habit.learn((7, 2, 3), (8, 6))
    assert habit.next((0, 1, 2, 3), 2) == (4, 5), "three tokens tell more than two"
    assert habit.next((0, 2, 3), 9) == (8, 6) and habit.next((5, 6), 9) == ()
    for _ in range(REMEMBERED // 8 + 2):
        habit.learn((), (1,) * 8)
    assert habit.next((0, 1, 2, 3), 2) == (), "what is too much is forgotten"


def test_habit_spares_forwards_and_changes_no_token(tiny_lm):
    prompts = [make_prompts(tiny_lm, 1)[0]] * 4
    decoder, forwards, got = Decoder(tiny_lm, batch_size=1), [], []
    with decoder.running():
        for prompt in prompts:
            before = decoder.forwards
            decoder.submit(Job(prompt, 10, session=object()))
            while decoder.load:
                got += [output for _, output in decoder.step()]
            forwards.append(decoder.forwards - before)
    assert len({o.ids for o in got}) == 1 and got[0] == decode(tiny_lm, prompts[:1], max_new_tokens=10, tricks=PLAIN)[0]
    assert max(forwards[1:]) <= forwards[0] / 2


def test_draft_length_falls_with_rows_and_with_rejections():
    policy = Policy(step=40.0)
    few, many = (policy.length([(0, 30)] * n) for n in (1, 64))
    assert few > many > 0
    for _ in range(200):
        policy.note(0, 8, 0)
    assert policy.length([(0, 30)] * 64) == 0
    lengths = [
        Policy(step=40.0, accepted=[float(a), 1.0], offered=[100.0, 3.0]).length([(0, 30)] * 8)
        for a in (20, 60, 90, 99)
    ]
    assert all(a <= b for a, b in pairwise(lengths)) and lengths[0] < lengths[-1]


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common_is_the_longest_shared_prefix(a, b):
    n = common(a, b)
    assert a[:n] == b[:n] and (n == min(len(a), len(b)) or a[n] != b[n])
