"""Models whose weights lie elsewhere between forwards: the same numbers as whole ones, or a refusal with its cure.

`meta` is where accelerate leaves the weights of offloaded modules, so a tensor that is put beside an idle weight fails
here as it would between two GPUs, of which this machine has none.
"""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from corrector.decoding import PLAIN, Tricks, decode, unfit
from corrector.decoding.scoring import kl_per_token
from corrector.errors import UserError
from corrector.loading.options import LoadOptions
from corrector.loading.placement import devices_of, input_device, is_offloaded
from corrector.loop import align
from corrector.models import load
from corrector.tasks import get
from corrector.tasks.base import Pair
from corrector.upstreams import LocalUpstream
from probes.capture import capture_all, sequence
from probes.scanning.lens import lens_logits
from probes.sites import SITES
from steering.interventions import Gate, Intervention, steer
from steering.sweep import Sweep, run
from tests.conftest import build_lm

accelerate = pytest.importorskip("accelerate")
PAIRS = [
    Pair("p0", "Tom has 3 pens", "", "he has 5 coins", "he has 6 coins"),
    Pair("p1", "Ann buys 12 apples", "she has 4.", "so Ann has 16", "so Ann has 16"),
]


def idle(lm):
    """Shares of the weights that lie on `meta`."""
    weights = list(lm.model.parameters())
    return sum(w.device.type == "meta" for w in weights) / len(weights)


def twins(arch, disk=None):
    """One model whole, and again with its weights offloaded to this machine's memory, or some of them to `disk`."""
    whole, apart = build_lm(arch), build_lm(arch)
    if disk is None:
        accelerate.cpu_offload(apart.model, execution_device=torch.device("cpu"))
    else:
        path = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}.get(arch, "model.layers")
        names = [name for name, m in apart.model.named_modules() if name and not list(m.children())]
        stays = [f"{path}.{k}." for k in (0, 2)]
        places = {n: "cpu" if not n.startswith(path) or n.startswith(tuple(stays)) else "disk" for n in names}
        accelerate.dispatch_model(apart.model, places, main_device="cpu", offload_dir=disk, force_hooks=True)
    return whole, apart


@pytest.fixture(params=["llama", "gemma2", "gpt2", "gpt_neox"])
def offloaded(request):
    return twins(request.param)


@pytest.fixture(params=["llama", "qwen2"])
def partly_on_disk(request, tmp_path):
    return twins(request.param, tmp_path / "weights")


@pytest.fixture(params=["offloaded", "partly_on_disk"])
def pair_of(request):
    return twins("llama") if request.param == "offloaded" else request.getfixturevalue("on_disk")


@pytest.fixture
def on_disk(tmp_path):
    return twins("llama", tmp_path / "weights")


def prompts(lm):
    return [lm.encode(p.question, p.prefix, p.last) for p in PAIRS]


def vector(lm, scale=4.0):
    draw = torch.Generator().manual_seed(1)
    return {k: scale * torch.randn(lm.model.config.hidden_size, generator=draw) for k in range(lm.n_layers)}


def test_the_fixtures_are_what_they_say(offloaded, partly_on_disk):
    assert idle(offloaded[0]) == 0 and idle(offloaded[1]) == 1
    assert 0.2 < idle(partly_on_disk[1]) < 0.8
    for _, apart in (offloaded, partly_on_disk):
        assert is_offloaded(apart.model)
        assert input_device(apart.model) == torch.device("cpu") and devices_of(apart.model) == [torch.device("cpu")]


def test_the_fingerprint_is_that_of_the_whole_model(offloaded, partly_on_disk):
    for whole, apart in (offloaded, partly_on_disk):
        before = idle(apart)
        assert apart.fingerprint == whole.fingerprint and idle(apart) == before


def test_captures_are_equal_to_the_bit_at_every_site(offloaded, partly_on_disk):
    for whole, apart in (offloaded, partly_on_disk):
        before = idle(apart)
        sequences = [sequence(whole, p, p.correction) for p in PAIRS]
        spans = ("prompt_last", "output", "last")
        one, other = (capture_all(lm, sequences, SITES, spans=spans) for lm in (whole, apart))
        assert all(torch.equal(one[key].h, other[key].h) for key in one)
        assert all(a.h.device.type == "cpu" for a in other.values())
        for layer in range(whole.n_layers):  # a forward cut short leaves nothing behind
            capture_all(apart, sequences, SITES, layers=[layer])
            assert idle(apart) == before


@pytest.mark.parametrize("tricks", [None, PLAIN, Tricks(shared=False)])
def test_decoding_steered_or_not_writes_the_same(offloaded, partly_on_disk, tricks):
    for whole, apart in (offloaded, partly_on_disk):
        assert unfit(apart) == unfit(whole)
        for operator, coef in (("add", None), ("add", (1.5, -2.0)), ("rotate", (0.7, -0.7)), ("clamp", (1.0, 2.0))):
            steering = [
                None if coef is None else Intervention.of(vector(whole), coef, [1, 2], operator, "prompt_last+output")
                for _ in range(2)
            ]
            one, other = (
                decode(lm, prompts(whole), max_new_tokens=8, steering=s, tricks=tricks)
                for lm, s in zip((whole, apart), steering, strict=True)
            )
            assert one == other and (coef is None or all(o.applied for o in one))


def test_gates_scores_and_the_lens_are_the_same(pair_of):
    whole, apart = pair_of
    v = vector(whole)
    targets = [whole.encode_target(p.correction) for p in PAIRS]
    seen = []
    for lm in (whole, apart):
        gate = Gate(v[0], 0, threshold=-1e3)
        steering = Intervention.of(v, (1.0, 1.0), [1], gate=gate)
        seen.append(kl_per_token(lm, prompts(whole), targets, steering))
    assert seen[0] == seen[1] and max(seen[0]) > 0
    h = torch.stack([v[0], v[1]])
    assert torch.equal(lens_logits(whole, h), lens_logits(apart, h))


@pytest.mark.parametrize("cached", [True, False])
def test_steer_on_the_bare_model_generates_the_same(pair_of, cached):
    ids = torch.tensor([prompts(pair_of[0])[0].ids])
    written = []
    for lm in pair_of:
        with steer(lm.model, vector(lm), coef=2.0, layers=[0, 3], span="prompt_last+output") as record:
            out = lm.model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cached)
        written.append((out.tolist(), record.applied))
    assert written[0] == written[1] and written[0][1] > 0
    plain = pair_of[1].model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cached)
    assert plain.tolist() != written[1][0]  # it did steer


def test_vectors_are_moved_to_the_activation_they_are_added_to():
    """Not where the first weight lies: of a model on two GPUs the blocks' devices differ."""
    lm = build_lm()
    steering = Intervention.of(vector(lm), (1.0,), [1])
    steering.begin([0], prompts(lm)[:1])
    n = len(prompts(lm)[0])
    steering.forward(torch.arange(n)[None], torch.ones(1, n, dtype=torch.bool))
    h = torch.empty(1, n, lm.model.config.hidden_size, device="meta", dtype=torch.bfloat16)
    (write,) = steering.writes()
    new = write.change(h)  # a tensor of the CPU beside one of another device would raise
    assert new.device.type == "meta" and new.dtype == torch.bfloat16 and new.shape == h.shape


@pytest.mark.parametrize("backend", ["transformer_lens", "nnsight"])
def test_other_libraries_refuse_with_the_cure(pair_of, backend):
    pytest.importorskip(backend)
    with pytest.raises(UserError, match=r"spread over devices or offloaded.*backend='torch'"):
        capture_all(pair_of[1], [sequence(pair_of[0], PAIRS[0])], backend=backend)


# Files of load options, the loop and the sweep


@pytest.fixture(scope="module")
def on_disk_file(dialogue_folder, tmp_path_factory):
    """Load options that leave the second block of the dialogue miniature on disk."""
    folder = tmp_path_factory.mktemp("options")
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    given = {"model": str(dialogue_folder), "device_map": places, "offload_folder": str(folder / "weights")}
    (folder / "spread.json").write_text(json.dumps(given))
    return folder / "spread.json"


def test_an_options_file_may_place_every_module(dialogue_folder, on_disk_file):
    whole, apart = load(dialogue_folder), load(on_disk_file)
    assert 0 < idle(apart) < 1 and apart.fingerprint == whole.fingerprint
    with pytest.raises(UserError, match=r"'device_map' is 3, not a str or dict"):
        on_disk_file.with_name("bad.json").write_text(json.dumps({"model": "x", "device_map": 3}))
        load(on_disk_file.with_name("bad.json"))
    assert LoadOptions(device_map={"": "cpu"}).device_map == {"": "cpu"}


def test_the_loop_answers_the_same(dialogue_folder, on_disk_file, upstream_folder):
    task = get("dialogue")
    problems = task.problems("test", 3, 0)
    rows = []
    for ref in (dialogue_folder, on_disk_file):
        upstream = LocalUpstream(load(upstream_folder), task)
        rows.append([a.row() for a in align(problems, upstream, load(ref), task=task)])
    assert rows[0] == rows[1] and any(r["rounds"] for r in rows[0])


def test_a_sweep_gives_the_same_rows(
    dialogue_folder, on_disk_file, upstream_folder, dialogue_vector, tmp_path, monkeypatch
):
    monkeypatch.setattr("steering.sweep.subprocess", SimpleNamespace(run=lambda *_, **__: None))  # its figure
    config = Sweep(
        coef=(-1.0, 1.5),
        task=("dialogue",),
        corrector=str(dialogue_folder),
        upstream=str(upstream_folder),
        vector=dialogue_vector.save(tmp_path / "v.safetensors"),
        layers=(0, 1),
        controls=1,
        items=3,
        problems=2,
        pairs=4,
        validation=2,
        temperature=0.0,
        out=tmp_path / "whole",
    )
    run(config)
    run(dataclasses.replace(config, corrector=str(on_disk_file), out=tmp_path / "apart"))
    for file in ("edits.jsonl", "alignments.jsonl"):
        one, other = ((tmp_path / name / file).read_bytes() for name in ("whole", "apart"))
        assert one == other and one
