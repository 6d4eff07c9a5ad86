import dataclasses

from corrector.decoding import Output, decode
from corrector.tasks.base import Pair
from corrector.tasks.dialogue import Dialogue
from probes import contrasts
from probes.contrasts import as_corrected, copy_rewrite

TEXTS = ("he has 3 pens", "she gets more apples and coins", "Tom sells 12 bags", "Ann eats")


def pairs():
    return [Pair(f"p{i}", f"Tom has {i} pens", "so he can", t, "not this", None, "good") for i, t in enumerate(TEXTS)]


def test_corrections_are_the_models_own_greedy_ones_and_nothing_else_changes(tiny_lm, monkeypatch):
    monkeypatch.setattr(Dialogue, "max_sentence_tokens", 6)
    got = as_corrected(tiny_lm, Dialogue(), iter(pairs()))
    for pair, before in zip(got, pairs(), strict=True):
        prompt = tiny_lm.encode(before.question, before.prefix, before.last)
        (alone,) = decode(tiny_lm, [prompt], max_new_tokens=6)
        assert pair == dataclasses.replace(before, correction=tiny_lm.decode(list(alone.ids)))
    assert any(pair.correction != "not this" for pair in got)


def test_what_is_contrasted_is_what_the_corrector_does_and_not_the_label(tiny_lm, monkeypatch):
    """A corrector that copies even numbers only, against labels that say the opposite."""

    def copies_even(lm, prompts, **_):
        out = []
        for prompt in prompts:
            start, end = prompt.spans["last"]
            ids = prompt.ids[start:end]
            even = int(lm.tokenizer.decode(ids).split()[2]) % 2 == 0
            out.append(Output(tuple(ids if even else ids[:-1]), True))
        return out

    monkeypatch.setattr(contrasts, "decode", copies_even)
    labelled = []
    for i in range(10, 14, 2):
        base = Pair(f"p{i}", f"Tom has {i} pens", "", f"he has {i} pens", "he has no pens")
        odd = f"he has {i + 1} pens"
        labelled += [base, dataclasses.replace(base, last=odd, correction=odd)]
    by_label, by_deed = copy_rewrite(labelled), copy_rewrite(as_corrected(tiny_lm, Dialogue(), labelled))
    assert [s.pair.last for s in by_label.positives] == ["he has 10 pens", "he has 12 pens"]
    assert [s.pair.last for s in by_deed.positives] == ["he has 11 pens", "he has 13 pens"]
    assert [s.pair.last for s in by_deed.negatives] == ["he has 10 pens", "he has 12 pens"]
    assert by_deed.dropped == 0
