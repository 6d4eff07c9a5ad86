import dataclasses
import random

import numpy as np
import pytest
import torch

from corrector.errors import UserError
from corrector.statistics import bootstrap_mean
from corrector.tasks.base import Pair
from probes.capture import Activations, capture_tokens
from probes.directions import Direction
from probes.scanning import scores as module
from probes.scanning.lens import is_written, lens_logits
from probes.scanning.scores import (
    LEAST_ITEMS,
    cells,
    neutral_scores,
    published,
    published_centre,
    read_scores,
    scanned,
)
from probes.spans import sequence

PAIRS = [
    Pair("p0", "Tom has 3 pens", "he has pens.", "he has 5 coins", "he has 6 coins"),
    Pair("p1", "Ann buys 12 apples", "she has 4.", "so Ann has 16", "so Ann has 16"),
    Pair("p2", "Mia sells 7 bags of coins", "", "no", ""),
]


def directions_of(lm, seed=0):
    g = torch.Generator().manual_seed(seed)
    d = lm.model.config.hidden_size
    return {
        k: Direction(torch.randn(d, generator=g), "random", k, "resid_post", "prompt_last") for k in range(lm.n_layers)
    }


def test_scanned_is_the_last_prompt_token_and_output_tokens_without_the_end(tiny_lm):
    for pair in PAIRS:
        s = sequence(tiny_lm, pair, pair.correction)
        output = tiny_lm.encode_target(pair.correction)[:-1]
        for tokens in (1, 3, 50):
            start, end = scanned(s, tokens).spans["scan"]
            assert start == s.spans["prompt_last"][0]
            assert list(s.ids[start + 1 : end]) == output[:tokens]


def test_scores_are_projections_of_the_captured_tokens(arch_lm):
    directions = directions_of(arch_lm)
    sequences = [scanned(sequence(arch_lm, p, p.correction), 4) for p in PAIRS]
    h = capture_tokens(arch_lm, sequences, span="scan")
    for item, scores in zip(h, read_scores(arch_lm, sequences, directions, "scan"), strict=True):
        for k, direction in directions.items():
            assert scores[k] == pytest.approx(direction.scores(item[k]).numpy(), abs=1e-4)


def test_z_scores_have_mean_0_and_deviation_1_on_neutral_tokens(tiny_lm):
    directions = directions_of(tiny_lm)
    neutral = neutral_scores(tiny_lm, PAIRS, directions)
    sequences = [sequence(tiny_lm, p) for p in PAIRS]
    z = [neutral.z(s) for s in read_scores(tiny_lm, sequences, directions, "prompt")]
    before = [
        scores[:, i]
        for s, scores in zip(sequences, z, strict=True)
        for name in ("question", "prefix")
        for i in range(*s.spans[name])
    ]
    pooled = np.stack(before, 1)
    assert neutral.n == pooled.shape[1] > 20
    assert pooled.mean(1) == pytest.approx(np.zeros(4), abs=1e-9)
    assert pooled.std(1) == pytest.approx(np.ones(4), abs=1e-9)


def test_neutral_tokens_know_nothing_of_the_suffix_and_count_once(tiny_lm):
    directions = directions_of(tiny_lm)
    others = [dataclasses.replace(p, last="Ann eats 99 apples and more", correction="no") for p in PAIRS]
    once, other, twice = (neutral_scores(tiny_lm, x, directions) for x in (PAIRS, others, [*PAIRS, *others]))
    assert other.n == once.n == twice.n
    assert other.mean == pytest.approx(once.mean, abs=1e-5) and twice.sd == pytest.approx(once.sd, abs=1e-5)
    empty = [dataclasses.replace(p, question="", prefix="") for p in PAIRS]
    with pytest.raises(UserError, match="no question or prefix token"):
        neutral_scores(tiny_lm, empty, directions)


def test_published_scores_are_an_independent_computation():
    """Straight from the notebook: shuffle each pair, difference, mean; (h - mean) @ v / |v|; clip."""
    g = torch.Generator().manual_seed(1)
    pos, neg = torch.randn(2, 9, 2, 6, generator=g)
    tokens = 4 * torch.randn(2, 5, 6, generator=g)
    v = torch.randn(2, 6, generator=g)
    ids = tuple(f"p{i}" for i in range(9))
    acts = [Activations(h, (0, 1), "resid_post", "prompt_last", ids) for h in (pos, neg)]
    directions = {k: Direction(v[k], "lat", k) for k in (1, 0)}
    coins = np.random.default_rng(7).choice([-1.0, 1.0], 9)
    centre = published_centre(acts[0], acts[1], directions, np.random.default_rng(7))
    raw = torch.einsum("ltd,ld->lt", tokens, v / v.norm(dim=1, keepdim=True)).double().numpy()
    got = published(raw, centre, 2.3)
    for k in range(2):
        rows = []
        for i in range(9):
            pair = [pos[i, k].numpy(), neg[i, k].numpy()]
            if coins[i] < 0:
                pair.reverse()
            rows += pair
        h_train = np.array(rows)
        relative = h_train[::2] - h_train[1::2]
        projected = (tokens[k].numpy() - relative.mean(axis=0)) @ v[k].numpy() / np.linalg.norm(v[k])
        assert got[k] == pytest.approx(projected.clip(-2.3, 2.3), abs=1e-5)
    own = {k: dataclasses.replace(d, origin=torch.full((6,), float(k))) for k, d in directions.items()}
    sums = [float(k * directions[k].unit.sum()) for k in range(2)]
    assert published_centre(acts[0], acts[1], own, np.random.default_rng(7)) == pytest.approx(sums, abs=1e-5)
    assert (np.abs(got) == 2.3).any() and (np.abs(got) < 2.3).any()


def test_cells_average_items_and_thin_columns_are_absent():
    rng = np.random.default_rng(0)
    lengths = [3] * LEAST_ITEMS + [2] * 2 + [4] * (LEAST_ITEMS - 1)
    scores = [rng.normal(size=(2, n)) for n in lengths]
    problems = [f"p{i // 2}" for i in range(len(lengths))]
    rows = {(r["layer"], r["token"]): r for r in cells(scores, problems)}
    assert set(rows) == {(k, t) for k in range(2) for t in range(3)}  # column 3 has LEAST_ITEMS - 1 items
    assert [rows[0, t]["n"] for t in range(3)] == [11, 11, 9]
    assert rows[1, 2]["n_problems"] == len({p for p, n in zip(problems, lengths, strict=True) if n > 2})
    values = [(s[1, 2], p) for s, p in zip(scores, problems, strict=True) if s.shape[1] > 2]
    truth = bootstrap_mean([v for v, _ in values], [p for _, p in values])
    assert (rows[1, 2]["mean"], rows[1, 2]["low"], rows[1, 2]["high"]) == (truth.mean, truth.low, truth.high)
    assert truth.mean == pytest.approx(np.mean([v for v, _ in values])) and truth.low < truth.mean < truth.high


def test_cells_of_one_problem_have_no_interval_and_order_does_not_matter():
    scores = [np.full((1, 1), float(i)) for i in range(LEAST_ITEMS)]
    (row,) = cells(scores, ["p"] * LEAST_ITEMS)
    assert row["mean"] == 2.0 and row["low"] is row["high"] is None and row["n_problems"] == 1
    assert cells([], []) == []
    mixed = list(enumerate(scores))
    random.Random(0).shuffle(mixed)
    (shuffled,) = cells([s for _, s in mixed], [f"p{i}" for i, _ in mixed])
    assert shuffled["mean"] == 2.0


def test_the_lens_at_the_last_layer_is_the_model(arch_lm):
    sequences = [sequence(arch_lm, p) for p in PAIRS]
    h = torch.stack([x[:, -1] for x in capture_tokens(arch_lm, sequences, span="prompt")])
    with torch.no_grad():
        logits = [arch_lm.model(torch.tensor([s.ids])).logits[0, -1] for s in sequences]
    torch.testing.assert_close(lens_logits(arch_lm, h[:, -1]), torch.stack(logits), atol=2e-4, rtol=1e-4)
    tokens = [int(x.argmax()) for x in logits]
    hits = is_written(arch_lm, h, tokens)
    assert hits.shape == (3, arch_lm.n_layers) and hits[:, -1].all()
    assert not is_written(arch_lm, h, [(t + 1) % 90 for t in tokens])[:, -1].any()


def test_a_model_without_a_known_final_norm_is_a_users_mistake(make_lm):
    lm = make_lm("llama")
    lm.model.model.ending = lm.model.model._modules.pop("norm")
    with pytest.raises(UserError, match="no final norm of a known name"):
        lens_logits(lm, torch.zeros(1, 32))


def test_scores_that_do_not_vary_are_refused(tiny_lm, monkeypatch):
    def flat_at_layer_1(lm, sequences, directions, span):
        return [np.stack([np.arange(len(s)), np.ones(len(s))]).astype(float) for s in sequences]

    monkeypatch.setattr(module, "read_scores", flat_at_layer_1)
    directions = {k: d for k, d in directions_of(tiny_lm).items() if k < 2}
    with pytest.raises(UserError, match="score alike at layer 1"):
        neutral_scores(tiny_lm, PAIRS, directions)
