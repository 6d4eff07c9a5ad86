"""Maps between spaces on rotated copies of a tiny model, and a transfer run from command to table."""

import copy
import dataclasses
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file

from corrector import tasks
from corrector.decoding import decode
from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel
from probes.capture import capture
from probes.classifiers.transfer import align
from probes.spans import sequence
from steering import transfer
from steering.interventions import Intervention
from steering.transfer import run
from steering.transfers import routes
from steering.transfers.config import Transfer, check
from steering.transfers.places import Place, Reading, prepare
from steering.transfers.slopes import measure
from steering.transfers.spaces import SpaceMap, mapped, procrustes, raw
from steering.vectors import SteeringVector
from tests.steering.conftest import save

ITEMS, D = 4, 32


def rotation(seed, d=D):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))[0]


def rotated(lm, q):
    """The same function of tokens with every residual state h as h q: RMSNorm of weight 1 commutes with rotations."""
    model = copy.deepcopy(lm.model).double()
    for name, w in model.named_parameters():
        if name.endswith("norm.weight"):
            assert bool((w == 1).all())
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            w.data = q.T @ w.data
        else:
            assert w.shape[-1] == D
            w.data = w.data @ q
    return LanguageModel(model.float().eval(), lm.tokenizer, lm.template, "rotated", dict(lm.card))


@pytest.fixture(scope="module")
def twin(dialogue_lm):
    return rotated(dialogue_lm, rotation(5))


@pytest.fixture(scope="module")
def pairs():
    return tasks.get("dialogue").pairs("train", 60)


def states(lm, pairs, layer):
    return capture(lm, [sequence(lm, p) for p in pairs], layers=[layer]).at(layer)


def test_procrustes_recovers_a_known_rotation_of_a_model(dialogue_lm, twin, pairs):
    h, theirs = states(dialogue_lm, pairs, 0), states(twin, pairs, 0)
    torch.testing.assert_close(theirs.double(), h.double() @ rotation(5), atol=1e-4, rtol=0)
    space = procrustes(h, theirs, 0, 0)
    torch.testing.assert_close(space.w, rotation(5), atol=1e-4, rtol=0)
    assert space.explained(h, theirs) == pytest.approx(1, abs=1e-6)
    assert raw(D, D, 0, 0).explained(h, theirs) < 0.3


def test_a_vector_mapped_to_the_rotated_model_steers_with_identical_outputs(dialogue_lm, twin, pairs, dialogue_vector):
    space = procrustes(states(dialogue_lm, pairs, 0), states(twin, pairs, 0), 0, 0)
    there = mapped(dialogue_vector, [space], twin)
    there.check(twin)
    assert there.layers == (0,) and there.card["operation"] == "mapped"
    assert there.card["parents"][0]["digest"] == dialogue_vector.digest
    assert there.card["maps"] == [{"how": "procrustes", "layer_from": 0, "layer_to": 0}]

    def outputs(lm, vector):
        prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs[:12]]
        steering = None if vector is None else Intervention.of(vector, [1.5] * 12, [0])
        return [o.ids for o in decode(lm, prompts, max_new_tokens=12, steering=steering)]

    assert outputs(twin, None) == outputs(dialogue_lm, None)
    steered = outputs(dialogue_lm, dialogue_vector)
    assert outputs(twin, there) == steered
    assert sum(a != b for a, b in zip(steered, outputs(dialogue_lm, None), strict=True)) >= 3
    assert outputs(twin, mapped(dialogue_vector, [raw(D, D, 0, 0)], twin)) != steered


def test_procrustes_agrees_with_scipy_and_with_the_probes_map():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 6, generator=g), torch.randn(50, 6, generator=g)
    space = procrustes(a, b, 0, 0)
    centred = [(x - x.mean(0)).double().numpy() for x in (a, b)]
    np.testing.assert_allclose(space.w, scipy.linalg.orthogonal_procrustes(*centred)[0], atol=1e-6)
    np.testing.assert_allclose(space.w, align(a.double().numpy(), b.double().numpy()).w, atol=1e-6)


@pytest.mark.parametrize(("d_from", "d_to"), [(4, 7), (7, 4)])
def test_unequal_widths_get_a_semi_orthogonal_map_that_finds_what_was_planted(d_from, d_to):
    g = torch.Generator().manual_seed(1)
    wide = rotation(2, 7)[:4]
    planted = wide if d_from < d_to else wide.T
    a = torch.randn(80, 4, generator=g, dtype=torch.float64)
    a = a if d_from == 4 else a @ wide
    space = procrustes(a.float(), (a @ planted + 3).float(), 1, 2)
    small = space.w @ space.w.T if d_from < d_to else space.w.T @ space.w
    torch.testing.assert_close(small, torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(space(a.float()), (a @ planted).float(), atol=1e-4, rtol=0)
    noise = torch.randn(80, d_to, generator=g)
    assert space.explained(a.float(), (a @ planted).float()) > 0.999 and space.explained(a.float(), noise) < 0.2


def test_maps_that_do_not_fit_are_refused(dialogue_lm, dialogue_vector):
    h, one = torch.randn(5, 4), torch.randn(1, 4)
    for make, message in (
        (lambda: raw(4, 5, 0, 0), "widths 4 and 5 differ"),
        (lambda: procrustes(h, h[:4], 0, 0), "5 to 4 items"),
        (lambda: procrustes(one, one, 0, 0), "two at least"),
        (lambda: raw(4, 4, 0, 0).explained(torch.ones(5, 4), h), "do not vary"),
        (lambda: mapped(dialogue_vector, [raw(4, 4, 0, 0)], dialogue_lm), "width 4 got a vector of width 32"),
        (lambda: mapped(dialogue_vector, [raw(D, D, 0, 1), raw(D, D, 1, 1)], dialogue_lm), "two maps write layer 1"),
        (lambda: mapped(dialogue_vector, [raw(D, D, 5, 1)], dialogue_lm), "layer=5 not in"),
        (lambda: mapped(dialogue_vector, [raw(D, D, 0, 9)], dialogue_lm), "layers 9"),
    ):
        with pytest.raises(UserError, match=message):
            make()


@pytest.fixture(scope="module")
def config(dialogue_folder, twin, tmp_path_factory):
    """A transfer of seconds between a model and its rotated copy; the control words rule arithmetic out."""
    return Transfer(
        corrector=(str(dialogue_folder), str(save(twin, tmp_path_factory.mktemp("twin") / "model"))),
        task=("dialogue", "arithmetic"),
        layers=(0,),
        how=("raw", "procrustes", "shuffled"),
        contrast="annotated",
        write="prompt_last+question",
        coef=(-1.0, 1.0),
        items=ITEMS,
        pairs=30,
        validation=4,
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    return run(dataclasses.replace(config, out=tmp_path_factory.mktemp("runs") / "finished"))


def rows(folder):
    return [json.loads(line) for line in (folder / "transfer.jsonl").read_text().splitlines()]


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_vector_turned_into_the_rotated_models_space_does_what_its_own_does(finished, config):
    names = {"config.json", "env.json", "transfer.json", "transfer.jsonl", "directions.safetensors", "summary.csv"}
    assert {p.name for p in finished.iterdir()} == names | {"DONE", ".lock"}
    table = pd.read_csv(finished / "summary.csv")
    model, twin = config.corrector
    assert sorted(zip(table.target, table.source, table.how, strict=True)) == sorted(
        [(model, model, "own"), (twin, twin, "own")]
        + [(t, s, how) for t, s in ((model, twin), (twin, model)) for how in ("raw", "procrustes", "shuffled")]
    )
    table = table.set_index(["target", "how"])
    for target in (model, twin):
        own, turned, plain, shuffled = (table.loc[(target, how)] for how in ("own", "procrustes", "raw", "shuffled"))
        assert own.cosine == pytest.approx(1, abs=1e-5) and own.ratio == 1
        assert turned.cosine == pytest.approx(1, abs=1e-3) and turned.explained == pytest.approx(1, abs=1e-3)
        assert turned.slope == pytest.approx(own.slope) and turned.norm_ratio == pytest.approx(1, abs=1e-3)
        assert abs(plain.cosine) < 0.7 and plain.explained < 0.5
        assert abs(shuffled.cosine) < 0.9 and shuffled.explained < 0.5
        assert own.random_cosine < 0.7 and own.random_low <= own.random_high


def test_rows_are_each_target_unsteered_and_by_every_direction_and_what_is_absent_is_said(finished, config):
    about = json.loads((finished / "transfer.json").read_text())
    assert len(about["absent"]) == 2 and all("on arithmetic: " in line for line in about["absent"])
    assert about["organisms"] == sorted(config.corrector)
    got = rows(finished)
    want = []
    for target in config.corrector:
        want += [(target, None, "none", 0.0, i) for i in range(ITEMS)]
        for k, route in enumerate(about["routes"]):
            names = ["correction", "random-00", "random-01", "random-02"]
            cells = [(name, c) for name in names for c in (-1.0, 1.0)] if route["target"] == target else []
            want += [(target, k, name, c, i) for name, c in cells for i in range(ITEMS)]
    assert [(r["target"], r["route"], r["direction"], r["coef"], r["item"]) for r in got] == want
    assert {r["layers"][0] for r in got} == {0} and {r["span"] for r in got} == {config.write}
    # Written at the question too, which is more than the one token it was read at.
    assert all(r["applied"] == 0 if r["coef"] == 0 else r["applied"] > 1 for r in got)
    directions = load_file(finished / "directions.safetensors")
    own = {r["target"]: directions[str(i)][0].norm() for i, r in enumerate(about["routes"]) if r["how"] == "own"}
    for i, route in enumerate(about["routes"]):
        norms = directions[str(i)].norm(dim=-1)
        torch.testing.assert_close(norms, own[route["target"]].expand(4), rtol=1e-5, atol=0)


def test_a_killed_run_resumes_to_the_same_bytes_and_prints_every_number(
    finished, config, tmp_path, monkeypatch, capsys
):
    cut = shutil.copytree(finished, tmp_path / "cut")
    lines = (finished / "transfer.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "transfer.jsonl").write_bytes(b"".join(lines[: ITEMS * 47 + 1]) + b'{"half')
    for name in ("DONE", "summary.csv"):
        (cut / name).unlink()
    monkeypatch.setattr(transfer, "plan", lambda *args: pytest.fail("extracted again"))
    run(dataclasses.replace(config, out=cut))
    monkeypatch.setattr(transfer, "prepare", lambda *args: pytest.fail("loaded again"))
    run(dataclasses.replace(config, out=cut))
    assert contents(cut) == contents(finished)
    printed = capsys.readouterr().out
    for x in pd.read_csv(cut / "summary.csv").itertuples():
        assert f"{x.slope:.3f} [{x.slope_low:.3f}, {x.slope_high:.3f}]" in printed
        assert f"{x.random_low:.3f} to {x.random_high:.3f}" in printed


def test_slopes_agree_with_a_fit_by_hand():
    routes = [{"target": "a", "task": "t", "how": how, "cosine_random": [0.1, -0.3, 0.2]} for how in ("own", "raw")]
    rng = np.random.default_rng(0)
    got, table = [], {}
    cells = [(None, "none", 0.0)]
    cells += [
        (r, d, c) for r in (0, 1) for d in ("correction", "random-00", "random-01", "random-02") for c in (-2.0, 1.0)
    ]
    for cell in cells:
        table[cell] = rng.random(6)
        for i, ratio in enumerate(table[cell]):
            about = dict(zip(("route", "direction", "coef"), cell, strict=True))
            row = {"target": "a", "task": "t", "problem": f"p{i}", "edit_ratio": ratio, "well_formed": i > 0}
            got.append({**row, **about})

    def slope(route, name):
        ys = [table[route, name, -2.0], table[None, "none", 0.0], table[route, name, 1.0]]
        return np.polyfit([-2, 0, 1], [y.mean() for y in ys], 1)[0]

    lines = measure(routes, got, seed=0)
    for i, line in enumerate(lines):
        null = [slope(i, f"random-{j:02d}") for j in range(3)]
        assert line["slope"] == pytest.approx(slope(i, "correction")) and line["n"] == 6
        assert line["slope_low"] <= line["slope"] <= line["slope_high"] and line["slope_low"] < line["slope_high"]
        assert (line["random_low"], line["random_high"]) == pytest.approx((min(null), max(null)))
        assert line["z"] == pytest.approx((line["slope"] - np.mean(null)) / np.std(null, ddof=1))
        assert line["ratio"] == pytest.approx(slope(i, "correction") / slope(0, "correction"))
        assert line["random_cosine"] == 0.3 and line["well_formed"] == pytest.approx(5 / 6)
    assert [x["how"] for x in measure(routes, got[:-1], seed=0)] == ["own"]  # the raw route is not finished


def test_unlike_widths_are_mapped_by_procrustes_and_raw_is_said_to_be_absent(dialogue_lm, pairs):
    small, big = torch.randn(9, 4), torch.randn(9, 6)
    vector = SteeringVector({0: torch.ones(4)}, "m", "resid_post", "last", "f", "lab", "r")
    places = [
        Place(dataclasses.replace(dialogue_lm, ref=name), tasks.get("dialogue"), layer, [])
        for name, layer in (("small", 0), ("big", 1))
    ]
    places[1] = dataclasses.replace(places[1], task=places[0].task)
    readings = [Reading(vector, small, small), Reading(vector, big, big)]
    said = []
    ways = dict(routes.ways(Transfer(), *places, *readings, said))
    assert set(ways) == {"procrustes"} and isinstance(ways["procrustes"], SpaceMap)
    assert ways["procrustes"].w.shape == (4, 6) and (ways["procrustes"].layer_from, ways["procrustes"].layer_to) == (
        0,
        1,
    )
    assert said == ["small/dialogue to big/dialogue, raw: " + said[0].split("raw: ")[1]] and "widths 4 and 6" in said[0]
    other = dataclasses.replace(places[0], task=tasks.get("arithmetic"))
    assert list(routes.ways(Transfer(), places[0], other, *readings, said)) == [("task", None)]
    assert list(routes.ways(Transfer(), places[1], other, *readings, said)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": 2}, "controls=2 is below 3"),
        ({"corrector": ("a", "a")}, "names one twice"),
        ({"how": ()}, "is empty"),
        ({"corrector": ("a",)}, "nothing to transfer to"),
        ({"layers": (1, 2)}, "one for each of 3"),
        ({"coef": (0.0,)}, "has no slope"),
        ({"coef": (0.0, float("inf"))}, "not finite"),
        ({"span": "outptu"}, "'outptu'"),
        ({"write": "prompt_last+outptu"}, "'outptu'"),
    ],
)
def test_configurations_that_cannot_run_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(UserError, match=message):
        check(dataclasses.replace(Transfer(), **changes))


def test_layers_and_words_that_no_corrector_has_are_refused(config):
    with pytest.raises(UserError, match=r"layer=4 of .* not in 0\.\.1"):
        prepare(dataclasses.replace(config, task=("dialogue",), layers=(4,)))
    with pytest.raises(UserError, match="0 of the correctors know the words"):
        prepare(dataclasses.replace(config, task=("arithmetic",)))


def test_a_users_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["transfer", "--controls", "1"])
    with pytest.raises(SystemExit) as stop:
        run_cli(Transfer, run, "steering.transfer")
    assert stop.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1
