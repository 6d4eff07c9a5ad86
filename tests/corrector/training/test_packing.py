import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from corrector.models import LanguageModel
from corrector.prompts import template
from corrector.recipes import Train
from corrector.tasks import get
from corrector.train import training_texts
from corrector.training import rows as module
from corrector.training.loop import loss_of
from corrector.training.packing import IGNORE, Packed, Segment, collate, common_prefix, pack
from corrector.training.rows import corrector_row
from corrector.training.tokenizers import bpe_tokenizer, word_tokenizer

CONFIG = Train(branches=4, first_weight=3.0, trunk_weight=0.3, last_weight=0.15)


def lm_of(tokenizer) -> LanguageModel:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    config = LlamaConfig(
        vocab_size=len(tokenizer), attn_implementation="eager", initializer_range=0.3, tie_word_embeddings=True,
        **sizes, **ids,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, template("lab"), "random")


@pytest.fixture(scope="module", params=[(t, k) for t in ("dialogue", "arithmetic") for k in ("words", "bytes")])
def case(request):
    """(model, task): every task with words, and with so few byte pairs that words fall apart."""
    name, kind = request.param
    task = get(name)
    texts = training_texts(task, 60)
    texts += [t for p in task.problems("test", 6) for s in task.example(p, random.Random(1)).steps
              for b in s.branches for t in (p.question, b.last, b.correction, b.prefix, s.chosen)]  # fmt: skip
    return lm_of(word_tokenizer(texts) if kind == "words" else bpe_tokenizer(texts, 300)), task


def rows_of(monkeypatch, lm, task, auxiliary: bool, n: int = 3) -> tuple[list[Packed], list[list[Segment]]]:
    """Packed rows, and the whole sequences that went into each: the trunk first."""
    whole: list[list[Segment]] = []

    def recording(trunk, branches):
        whole.append([trunk, *branches])
        return pack(trunk, branches)

    monkeypatch.setattr(module, "pack", recording)
    rng = random.Random(1)
    rows: list[Packed] = []
    for problem in task.problems("test", 6)[:n]:
        example = task.example(problem, random.Random(1))
        pairs = [p for s in example.steps for p in s.branches]
        chosen = rng.sample(pairs, min(CONFIG.branches, len(pairs)))
        rows.append(corrector_row(lm, example, chosen, CONFIG, auxiliary))
    return rows, whole


def unpacked_logits(lm, segment: Segment) -> torch.Tensor:
    return lm.model(input_ids=torch.tensor([segment.ids]), use_cache=False).logits[0]


def packed_logits(lm, rows: list[Packed]) -> torch.Tensor:
    b = collate(rows, 0)
    hidden = lm.model.model(b.ids, attention_mask=b.mask, position_ids=b.positions, use_cache=False).last_hidden_state
    return lm.model.lm_head(hidden)


def unpacked_loss(lm, whole: list[list[Segment]]) -> torch.Tensor:
    """Weighted mean cross-entropy with every sequence on its own, no mask at all."""
    total, weight = torch.zeros(()), 0.0
    for segment in (s for row in whole for s in row):
        w = torch.tensor(segment.weights)[1:]
        nll = cross_entropy(unpacked_logits(lm, segment)[:-1], torch.tensor(segment.ids[1:]), reduction="none")
        total, weight = total + (nll * w).sum(), weight + w.sum()
    return total / weight


@pytest.mark.parametrize("auxiliary", [True, False])
def test_every_supervised_logit_is_that_of_the_sequence_alone(case, auxiliary, monkeypatch):
    lm, task = case
    rows, whole = rows_of(monkeypatch, lm, task, auxiliary)
    assert len({len(row) for row in rows}) > 1, "padding is not tried"
    with torch.no_grad():
        packed = packed_logits(lm, rows)
        for r, (row, segments) in enumerate(zip(rows, whole, strict=True)):
            assert len(row) < sum(len(s.ids) for s in segments), "nothing was shared"
            alone = [unpacked_logits(lm, s) for s in segments]
            met = set()
            for i, (k, p) in enumerate(zip(row.branch, row.positions, strict=True)):
                if row.targets[i] != IGNORE:
                    met.add((k, p + 1))
                    assert row.targets[i] == segments[k].ids[p + 1] and row.weights[i] == segments[k].weights[p + 1]
                    torch.testing.assert_close(packed[r, i], alone[k][p], rtol=1e-5, atol=1e-5)
            meant = {(k, p) for k, s in enumerate(segments) for p, w in enumerate(s.weights) if w > 0}
            assert met == meant and any(k > 0 for k, _ in meant)
        torch.testing.assert_close(loss_of(lm.model, collate(rows, 0)), unpacked_loss(lm, whole), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_sequences_alone(case, monkeypatch):
    lm, task = case
    rows, whole = rows_of(monkeypatch, lm, task, auxiliary=True, n=2)
    parameters = list(lm.model.parameters())
    packed = torch.autograd.grad(loss_of(lm.model, collate(rows, 0)), parameters)
    alone = torch.autograd.grad(unpacked_loss(lm, whole), parameters)
    for got, want in zip(packed, alone, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)
    assert max(g.abs().max() for g in alone) > 1e-2


def test_a_branch_never_sees_another_branch(case, monkeypatch):
    lm, task = case
    (row, *_), _ = rows_of(monkeypatch, lm, task, auxiliary=True, n=1)
    changed = replace(row, ids=tuple((i + 1) % 200 if k == 2 else i for i, k in zip(row.ids, row.branch, strict=True)))
    with torch.no_grad():
        before, after = packed_logits(lm, [row])[0], packed_logits(lm, [changed])[0]
    second = torch.tensor(row.branch) == 2
    assert max(row.branch) >= 3 and second.any()
    assert torch.equal(before[~second], after[~second])
    assert not torch.isclose(before[second], after[second]).all(-1).any()


def test_a_row_does_not_depend_on_its_batch(case, monkeypatch):
    lm, task = case
    rows, _ = rows_of(monkeypatch, lm, task, auxiliary=True)
    with torch.no_grad():
        together = packed_logits(lm, rows)
        for r, row in enumerate(rows):
            torch.testing.assert_close(packed_logits(lm, [row])[0], together[r, : len(row)], rtol=1e-5, atol=1e-5)


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def segment_of(tokens: list[tuple[int, float]]) -> Segment:
    """A segment whose first token is not trained and whose second weight on is as drawn, the last one trained."""
    ids, weights = zip(*tokens, strict=True)
    return Segment(ids, (0.0, *weights[1:-1], 1.0))


SEGMENTS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.0, 0.5])), min_size=2, max_size=12),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(TOKENS, SEGMENTS)
def test_a_branch_forks_where_it_leaves_the_trunk_but_before_it_trains(trunk: list[int], drawn: list):
    branches = [segment_of(tokens) for tokens in drawn]
    row = pack(Segment(tuple(trunk), tuple(0.0 for _ in trunk)), branches)
    assert row.ids[: len(trunk)] == tuple(trunk) and set(row.targets[: len(trunk)]) == {IGNORE}
    for k, segment in enumerate(branches, start=1):
        own = [i for i, b in enumerate(row.branch) if b == k]
        (fork,) = {row.fork[i] for i in own}
        first = next(i for i, w in enumerate(segment.weights) if w > 0)
        assert fork == min(common_prefix(trunk, segment.ids), first - 1) < first
        assert tuple(trunk[:fork]) + tuple(row.ids[i] for i in own) == segment.ids
        assert [row.positions[i] for i in own] == list(range(fork, len(segment.ids)))
        trained = [(row.positions[i] + 1, row.targets[i], row.weights[i]) for i in own if row.targets[i] != IGNORE]
        assert trained == [
            (p, t, w) for p, (t, w) in enumerate(zip(segment.ids, segment.weights, strict=True)) if w > 0
        ]


@settings(max_examples=40, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=2), SEGMENTS)
def test_the_mask_is_the_trunk_before_the_fork_and_the_branch_itself(trunks: list[list[int]], drawn: list):
    branches = [segment_of(tokens) for tokens in drawn]
    rows = [pack(Segment(tuple(t), tuple(0.0 for _ in t)), branches) for t in trunks]
    batch = collate(rows, pad_id=9)
    assert set(batch.mask.unique().tolist()) <= {0.0, float("-inf")}
    assert torch.isfinite(batch.mask).any(-1).all(), "a token that sees nothing makes NaN"
    for r, row in enumerate(rows):
        n = len(row)
        assert (batch.ids[r, n:] == 9).all() and (batch.targets[r, n:] == IGNORE).all()
        mask = batch.mask[r, 0].tolist()
        for i in range(n):
            sees = {j for j, m in enumerate(mask[i]) if m == 0}
            own = {j for j in range(i + 1) if row.branch[j] == row.branch[i]}
            trunk = {j for j in range(n) if row.branch[j] == 0 and row.positions[j] < row.fork[i]}
            assert sees == own | trunk
            # what it sees is one sequence without holes: positions 0 to its own, each once
            assert sorted(row.positions[j] for j in sees) == list(range(row.positions[i] + 1))


@given(TOKENS, TOKENS)
def test_common_prefix(a: list[int], b: list[int]):
    n = common_prefix(a, b)
    assert a[:n] == b[:n] and (n == min(len(a), len(b)) or a[n] != b[n])


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, 0.0, 1.0)])
def test_a_branch_that_cannot_be_trained_as_meant_is_refused(weights):
    with pytest.raises(ValueError, match="branch 1 of 3 tokens trains none"):
        pack(Segment((1, 2), (0.0, 1.0)), [Segment((1, 2, 3), weights)])
