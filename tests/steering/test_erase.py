"""Erasure in the decoder: identity, invariance, counts, restoration; the run and its resume, on a tiny model."""

import copy
import dataclasses
import json
import math
import random
import shutil
import sys
from functools import partial

import pandas as pd
import pytest
import torch

from corrector import tasks
from corrector.decoding import LiveSteering, decode
from corrector.decoding.scoring import kl_per_token
from corrector.errors import UserError, run_cli
from corrector.models import blocks, load
from probes.erasure import Eraser, Items, fit_in_order, leace
from probes.spans import Sequence
from steering import erase
from steering.erase import Erase, run
from steering.erase_tables import label, show, verdict
from steering.interventions.erasure import Erasure
from steering.interventions.positions import resolve
from tests.steering.uncached import decode_uncached

D, LAYERS, NEW = 32, (1, 2), 8
SPANS = ["prompt_last", "output", "prompt_last+output", "all", "question+last"]
TEXTS = ["Tom has 12 apples.", "Ann buys 3 bags of 4 coins.", "Mia eats 2 apples, so she has 10.", "it is 7."]


def make_prompts(lm, n=6):
    rng = random.Random(0)
    return [lm.encode("how many has Tom?", " ".join(TEXTS[: rng.randint(0, 3)]), rng.choice(TEXTS)) for _ in range(n)]


def make_eraser(seed, rank=1):
    """An oblique projection that moves states a lot."""
    g = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, D, rank, generator=g, dtype=torch.float64)
    return Eraser(left @ torch.linalg.inv(right.T @ left), right, 3 * torch.randn(D, generator=g).double(), "any")


def make_erasers(layers=LAYERS):
    return {k: make_eraser(k) for k in layers}


IDENTITY = Eraser(torch.zeros(D, 0), torch.zeros(D, 0), torch.zeros(D), "identity")


def uncached(lm, prompt, n, erasers, span, coef=1.0):
    """By matrices in float64."""

    def erased(h, e):
        return h - (coef * (h.double() - e.mean) @ (e.left @ e.right.T).T).float()

    return decode_uncached(lm, prompt, n, span, {layer: partial(erased, e=e) for layer, e in erasers.items()})


@pytest.mark.parametrize("span", SPANS)
def test_batched_decoding_equals_the_uncached_oracle_and_counts_every_application(arch_lm, span):
    prompts, erasers = make_prompts(arch_lm, 4), make_erasers()
    got = decode(arch_lm, prompts, max_new_tokens=NEW, steering=Erasure(erasers, span))
    assert [o.ids for o in got] == [uncached(arch_lm, p, NEW, erasers, span) for p in prompts]
    for o, p in zip(got, prompts, strict=True):
        fed = len(p) + len(o.ids) - (not o.ended)
        places = {i for start, end in resolve(span, p.spans) for i in range(start, min(end, fed))}
        assert o.applied == len(places) * len(LAYERS)


def test_erasing_changes_something_and_a_share_of_it_is_between(tiny_lm):
    prompts, erasers = make_prompts(tiny_lm), make_erasers()
    plain = decode(tiny_lm, prompts, max_new_tokens=NEW)
    erased = decode(tiny_lm, prompts, max_new_tokens=NEW, steering=Erasure(erasers, "all"))
    assert sum(a.ids != b.ids for a, b in zip(plain, erased, strict=True)) >= 3
    half = decode(tiny_lm, prompts, max_new_tokens=NEW, steering=Erasure(erasers, "all", coef=0.5))
    assert [o.ids for o in half] == [uncached(tiny_lm, p, NEW, erasers, "all", 0.5) for p in prompts]
    assert [o.ids for o in half] != [o.ids for o in erased]


@pytest.mark.parametrize("span", ["prompt_last", "all"])
def test_the_identity_eraser_and_coefficient_0_are_no_steering_token_for_token(arch_lm, span):
    prompts = make_prompts(arch_lm)
    plain = decode(arch_lm, prompts, max_new_tokens=NEW)
    broken = dataclasses.replace(make_eraser(0), mean=torch.full((D,), math.nan).double())
    for erasure in (Erasure({1: IDENTITY, 3: IDENTITY}, span), Erasure({1: broken}, span, coef=0.0)):
        assert isinstance(erasure, LiveSteering)
        assert decode(arch_lm, prompts, max_new_tokens=NEW, steering=erasure) == plain
        assert kl_per_token(arch_lm, prompts[:2], [[20, 21]] * 2, erasure) == [0.0, 0.0]
    mixed = decode(arch_lm, prompts, max_new_tokens=NEW, steering=Erasure({1: IDENTITY, 2: make_eraser(2)}))
    assert mixed == decode(arch_lm, prompts, max_new_tokens=NEW, steering=Erasure({2: make_eraser(2)}))


def test_rows_of_a_batch_equal_separate_runs(arch_lm):
    prompts = make_prompts(arch_lm)
    erasure = Erasure({1: make_eraser(0, rank=3), 3: make_eraser(1)}, "prompt_last+output")
    got = decode(arch_lm, prompts, max_new_tokens=NEW, steering=erasure, batch_size=6)
    assert decode(arch_lm, prompts, max_new_tokens=NEW, steering=erasure, batch_size=2) == got
    assert [decode(arch_lm, [p], max_new_tokens=NEW, steering=erasure)[0] for p in prompts] == got
    order = [3, 1, 5, 0, 2, 4]
    assert decode(arch_lm, [prompts[i] for i in order], max_new_tokens=NEW, steering=erasure) == [got[i] for i in order]


def test_leaving_restores_the_model_bitwise_also_by_an_exception(arch_lm):
    model, prompt = arch_lm.model, make_prompts(arch_lm)[0]
    ids, hooks = torch.tensor([prompt.ids]), [len(b._forward_hooks) for b in blocks(model)]
    weights, plain = copy.deepcopy(model.state_dict()), model(ids).logits
    erasure = Erasure(make_erasers(), "all")
    with pytest.raises(KeyError, match="mine"):
        with erasure.attach(model):
            erasure.begin([0], [prompt])
            erasure.forward(torch.arange(len(prompt))[None], torch.ones(1, len(prompt), dtype=torch.bool))
            assert not torch.equal(model(ids).logits, plain)
            assert erasure.applied.tolist() == [len(prompt) * len(LAYERS)]
            raise KeyError("mine")
    assert torch.equal(model(ids).logits, plain)
    assert all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())
    assert [len(b._forward_hooks) for b in blocks(model)] == hooks


def test_hooks_that_do_not_fire_and_forwards_that_were_not_announced_are_loud(tiny_lm, monkeypatch):
    prompts = make_prompts(tiny_lm, 2)
    erasure = Erasure(make_erasers())
    with erasure.attach(tiny_lm.model), pytest.raises(RuntimeError, match="where the intervention was told of None"):
        tiny_lm.model(torch.tensor([prompts[0].ids]))
    monkeypatch.setattr(Erasure, "_write", lambda self, place, h: None)
    with pytest.raises(RuntimeError, match="applied 0 times where 2 were due"):
        decode(tiny_lm, prompts, max_new_tokens=2, steering=Erasure(make_erasers()))
    items = Items([Sequence(p.ids, p.spans) for p in prompts], [[len(p) - 1] for p in prompts], torch.ones(2).bool())
    with pytest.raises(RuntimeError, match="applied 0 times where 2 were due"):
        items.states(tiny_lm, [3], Erasure(make_erasers()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Erasure({4: make_eraser(0)}), r"layer=4 not in 0\.\.3"),
        (lambda: Erasure({1: Eraser(torch.ones(8, 1), torch.ones(8, 1), torch.ones(8), "any")}), "of 8 numbers"),
        (lambda: Erasure(make_erasers(), "everything"), "span='everything'"),
        (lambda: Erasure(make_erasers(), coef=math.inf), "coef=inf is not finite"),
        (lambda: Erasure({}), "nothing to erase"),
    ],
)
def test_mistakes_are_named(tiny_lm, make, said):
    with pytest.raises(UserError, match=said):
        decode(tiny_lm, make_prompts(tiny_lm, 1), max_new_tokens=1, steering=make())


def labelled(lm, n=40):
    """Prompts of which the class shows in one word, and the places of their last two tokens."""
    rng = random.Random(1)
    prompts = [lm.encode("how many has Tom?", rng.choice(TEXTS), "yes" if i % 2 else "not") for i in range(n)]
    sequences = [Sequence(p.ids, p.spans, f"p{i}") for i, p in enumerate(prompts)]
    return Items(sequences, [[len(p) - 2, len(p) - 1] for p in prompts], torch.arange(n) % 2 == 1)


def test_states_under_an_erasure_are_the_erased_ones(tiny_lm):
    items, erasers = labelled(tiny_lm, 6), make_erasers((1,))
    span = "last+prompt_last"  # the two tokens that are read
    plain = items.states(tiny_lm, [1])
    erased = items.states(tiny_lm, [0, 1, 3], Erasure(erasers, span))
    before = items.states(tiny_lm, [0, 3])
    for h, p, b in zip(erased, plain, before, strict=True):
        torch.testing.assert_close(h[1], erasers[1](p[0]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(h[0], b[0])
        assert not torch.allclose(h[2], b[1], atol=1e-2)


def test_fitted_in_order_no_layer_is_left_with_the_concept(tiny_lm):
    items, layers, span = labelled(tiny_lm), [0, 1, 2, 3], "last+prompt_last"
    labels = items.rewritten.repeat_interleave(2)
    states = torch.cat(items.states(tiny_lm, layers), dim=1)
    plain = dict(zip(layers, states, strict=True))

    def fit(name, layers=layers, sizes=None):
        return fit_in_order(tiny_lm, items, plain, layers, name, 0, lambda e: Erasure(e, span), sizes)

    def covariances(erasers):
        h = torch.cat(items.states(tiny_lm, layers, Erasure(erasers, span) if erasers else None), dim=1).double()
        z = labels.double() - labels.double().mean()
        return [float(((x - x.mean(0)).T @ z / len(z)).norm() / x.std(0).norm()) for x in h]

    apart = {k: leace(plain[k], labels) for k in layers}
    found, after_fit_apart, left = covariances({}), covariances(apart), covariances(fit("leace"))
    assert min(found) > 0.02 and max(left) < 1e-5
    assert max(after_fit_apart) > 1e-3  # fitted with nothing erased before, later layers keep some
    assert max(covariances(fit("mean_projection"))) < 1e-5
    assert min(covariances(fit("random-00"))) > 0.01
    sizes = {k: e.moved for k, e in fit("leace").items()}
    matched = fit("matched-00", sizes=sizes)
    assert {k: e.wanted for k, e in matched.items()} == sizes
    assert all(e.moved == pytest.approx(sizes[k], rel=1e-4) for k, e in matched.items())
    assert min(covariances(matched)) > 0.01 < min(covariances(fit("complement")))
    # The same draw wherever a layer is erased, and another for another name, layer or seed.
    assert torch.equal(fit("random-00")[2].left, fit("random-00", [2])[2].left)
    assert not torch.equal(fit("random-00")[2].left, fit("random-01")[2].left)
    assert not torch.equal(fit("random-00")[2].left, fit("random-00")[3].left)


ITEMS = 4


@pytest.fixture(scope="module")
def config(dialogue_folder):
    """A run of seconds. A random model copies nothing, so the annotator's labels are erased."""
    return Erase(
        corrector=str(dialogue_folder),
        contrast="annotated",
        items=ITEMS,
        pairs=5,
        validation=3,
        controls=1,
        layers=(0, 1),
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    return run(dataclasses.replace(config, out=tmp_path_factory.mktemp("runs") / "finished"))


def rows(folder):
    return [json.loads(line) for line in (folder / "edits.jsonl").read_text().splitlines()]


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


CELLS = [
    ("none", []),
    *((name, k) for k in ([0], [1], [0, 1]) for name in (*erase.FITTED, "matched-00", "random-00")),
]


def test_the_run_folder_holds_every_cell_item_by_item(finished, config):
    names = {"config.json", "env.json", "erasure.json", "edits.jsonl", "summary.json", "summary.csv", "DONE", ".lock"}
    assert {p.name for p in finished.iterdir()} == names
    edits = rows(finished)
    assert [(r["eraser"], r["layers"], r["item"]) for r in edits] == [(*c, i) for c in CELLS for i in range(ITEMS)]
    fields = {"question", "prefix", "last", "correction", "copied", "edit_ratio", "is_wrong", "well_formed", "rewrote"}
    for row in edits:
        assert row.keys() >= fields | {"is_right_after", "ended", "span", "problem"}
        assert row["applied"] == len(row["layers"])
        assert row["rank"] == {"none": 0, "complement": 31}.get(row["eraser"], 1) or row["eraser"] == "matched-00"
        assert (row["matched"] is None) == (row["wanted"] is None) == (row["eraser"] != "matched-00")
        assert (row["kl"] == 0) == (row["moved"] == 0) == (row["eraser"] == "none")
        assert len(row["probe"]) == 2 and row["rewrote"] is True
    about = json.loads((finished / "erasure.json").read_text())
    assert about["model_organism"] is True and about["test"] == {"rewrote": ITEMS, "copied": 0}
    assert about["train"]["matched"] == 5 and about["corrector"] == config.corrector


def test_rows_without_erasure_are_what_the_decoder_writes_and_erasures_change_some(finished, config):
    lm, task = load(config.corrector), tasks.get("dialogue")
    pairs = task.pairs("test", ITEMS, config.seed)
    outputs = decode(lm, [lm.encode(p.question, p.prefix, p.last) for p in pairs], max_new_tokens=64)
    by_cell = {}
    for row in rows(finished):
        by_cell.setdefault((row["eraser"], str(row["layers"])), []).append(row["correction"])
    plain = by_cell.pop(("none", "[]"))
    assert plain == [lm.decode(list(o.ids)) for o in outputs]
    assert len(by_cell) == len(CELLS) - 1 and sum(texts != plain for texts in by_cell.values()) >= 2


def test_the_summary_has_a_line_a_cell_and_no_gap_where_all_is_rewritten(finished, capsys, config):
    lines = json.loads((finished / "summary.json").read_text())
    assert [(x["eraser"], x["layers"]) for x in lines] == CELLS and all(x["n"] == ITEMS for x in lines)
    assert all(x["gap"] is None and x["auroc_layers"] == [] for x in lines)
    frame = pd.read_csv(finished / "summary.csv")
    assert list(frame["eraser"]) == [name for name, _ in CELLS] and frame["gap"].isna().all()
    show(finished)
    printed = capsys.readouterr().out
    assert "no decision gap to close" in printed and "model organism" in printed
    assert "mean_projection" in printed and "4 rewritten and 0 copied" in printed


def test_the_same_command_on_a_finished_run_changes_nothing(finished, config, monkeypatch):
    before = contents(finished)
    monkeypatch.setattr(erase, "prepare", lambda config: pytest.fail("a finished run needs no model"))
    assert run(dataclasses.replace(config, out=finished)) == finished
    assert contents(finished) == before


@pytest.mark.parametrize("kept", [1.6 * ITEMS, 17.4 * ITEMS])
def test_a_run_cut_anywhere_goes_on_to_the_same_bytes(finished, config, tmp_path, kept):
    whole = contents(finished)
    shutil.copytree(finished, tmp_path / "cut")
    for name in ("DONE", "summary.json", "summary.csv"):
        (tmp_path / "cut" / name).unlink()
    lines = whole["edits.jsonl"].splitlines(keepends=True)
    half = lines[int(kept)][:40] if kept % 1 else b""
    (tmp_path / "cut" / "edits.jsonl").write_bytes(b"".join(lines[: int(kept)]) + half)
    run(dataclasses.replace(config, out=tmp_path / "cut"))
    for name in ("edits.jsonl", "DONE", "erasure.json", "summary.json", "summary.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == whole[name], name


def test_a_shipped_corrector_loses_its_decision_with_the_concept_and_keeps_it_under_the_nulls(tmp_path, capsys):
    """Planted by training: dialogue-0 is built to decide at this position."""
    config = Erase("dialogue-0", layers=(5,), items=20, pairs=40, validation=16, controls=1, out=tmp_path / "run")
    lines = {x["eraser"]: x for x in json.loads((run(config) / "summary.json").read_text())}
    assert lines["none"]["gap"] == 1 and lines["none"]["auroc_layers"][5] > 0.95
    assert lines["leace"]["gap_high"] < 0.9 and lines["leace"]["auroc"] < 0.8 and lines["leace"]["moved"] > 0.3
    for name in ("shuffled_labels", "random-00"):
        assert lines[name]["gap"] > 0.8 and lines[name]["auroc"] > 0.95 and lines[name]["moved"] < 0.1
    size = lines["matched-00"]
    assert size["matched"] and abs(size["moved"] - lines["leace"]["moved"]) <= 0.1 * size["wanted"]
    assert size["auroc"] > 0.95 and size["gap_over"] > 0.2
    assert size["gap_over"] == pytest.approx(size["gap"] - lines["leace"]["gap"])
    assert lines["leace"]["gap_over"] == 0 and lines["complement"]["auroc"] > 0.95
    printed = capsys.readouterr().out
    assert "layer 5, which leaves least of 1 erased alone: correction falls" in printed and "together" not in printed
    assert "under 1 null of its size (0.6" in " ".join(printed.split())


def line(eraser, gap, low, high, **fields):
    own = {"eraser": eraser, "layers": [4], "gap": gap, "gap_low": low, "gap_high": high, "matched": None, "moved": 0.6}
    return own | fields


def of_size(gap, over, low, **fields):
    found = {"gap_over": over, "gap_over_low": low, "gap_over_high": 0.9, "matched": True, "scale": 1.2, "wanted": 0.6}
    return line("matched-00", gap, gap - 0.2, 1.0, **found | fields)


NULLS = [
    line("shuffled_labels", 0.95, 0.9, 1.0),
    line("random-00", 1.0, 0.97, 1.0),
    line("mean_projection", 0.1, 0, 0.2),
    of_size(0.9, 0.5, 0.2),
    of_size(0.8, 0.4, 0.1, scale=1.0),
]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            line("leace", 0.1, -0.05, 0.2),
            "correction falls, and may be gone: decision gap from 1 to 0.10 \\[-0.05, 0.20]",
        ),
        (line("leace", 0.5, 0.3, 0.8), "correction falls, not to 0: decision gap from 1 to 0.50"),
        (line("leace", 0.8, 0.7, 0.93), "correction stays"),
        (line("leace", None, None, None), "no decision gap"),
    ],
)
def test_the_verdict_goes_by_the_intervals_of_leace_and_its_nulls(own, said):
    assert verdict([own, *NULLS]).startswith(said)
    if own["gap"] is not None:
        assert "under 2 nulls of its rank to 0.95-1.00; under 2 nulls of its size" in verdict([own, *NULLS])


def test_the_verdict_says_whether_it_is_more_than_the_amount_and_where_the_size_was_not_reached():
    own = line("leace", 0.5, 0.3, 0.8)
    both = verdict([own, *NULLS])
    assert "2 nulls of its size (0.60 moved of 0.60 of the variance, past the mean (c up to 1.20)" in both
    assert "to 0.80-0.90, 0.40-0.50 more (paired, lowest interval from 0.10)" in both
    assert both.endswith("what is moved counts, not only how much")
    less = verdict([own, *NULLS[:3], of_size(0.6, 0.1, -0.1, scale=1.0)])
    assert less.endswith("that it is not only how much is not shown") and "past the mean" not in less
    short = [of_size(0.9, 0.5, 0.2, moved=0.3, matched=False)]
    said = "no null has its size: without the concept 0.30 can be moved, LEACE moves 0.60 of the variance"
    assert verdict([own, *NULLS[:3], *short]).endswith(said)
    assert label(short) == "not matched" and label(NULLS[3:]) == "matched" and label(NULLS[1:2]) == "random"


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(words)`: exit code and stderr, progress bars aside, of `python -m steering.erase`."""

    def call(words):
        monkeypatch.setattr(sys, "argv", ["erase", *words])
        with pytest.raises(SystemExit) as stop:
            run_cli(Erase, run, "steering.erase")
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        return stop.value.code, [x for x in lines if x.strip() and "%|" not in x]

    return call


MISTAKES = {
    "unknown task": ("--task poetry", "task='poetry' is not one of dialogue"),
    "layer out of range": ("--layers 2", "layers=[2] not in 0..1"),
    "layer twice": ("--layers 1 1", "layers=[1, 1] not in 0..1, each once"),
    "span unknown": ("--span outptu", "'outptu' is not one of all"),
    "no control": ("--controls 0", "controls=0 is below 1"),
    "too few items": ("--items 1", "items=1 is below 2"),
    "more than there are": ("--items 99999", "99999 problems of split 'test'"),
    "a corrector that copies nothing": (
        "--items 2 --pairs 2 --validation 2",
        "contrast 'copy_rewrite' has no matched pair",
    ),
    "an empty span": (
        "--contrast annotated --pairs 4 --validation 2 --items 2 --span prefix",
        "has no token to read",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_users_mistake_is_one_line_exit_code_2_and_no_run_folder(
    dialogue_folder, command, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    words, expected = MISTAKES[name]
    code, said = command(["--corrector", str(dialogue_folder), *words.split()])
    assert code == 2 and len(said) == 1, said
    assert said[0].startswith("steering.erase: ") and expected in said[0]
    assert not list(tmp_path.iterdir())


def test_another_configuration_does_not_touch_a_run(finished, config, command):
    before = contents(finished)
    code, said = command(["--corrector", config.corrector, "--out", str(finished)])
    assert code == 2 and "holds another run: " in said[-1]
    assert contents(finished) == before
