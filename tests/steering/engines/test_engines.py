"""Blocks on a Ray cluster: the bytes of the local engine, also when a node dies; mistakes are said in one line."""

import dataclasses
import pickle
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from corrector.errors import UserError, run_cli
from corrector.records.blocks import Blocks
from steering import sweep
from steering.engines import engine_of, worker
from steering.engines.crew import MAX_RETRIES, share
from steering.engines.worker import Refusal, Worker, send
from steering.sweep import Sweep, run
from steering.sweeping.rows import Block, blocks_of, compute

ITEMS, PROBLEMS = 12, 3
FILES = ("edits.jsonl", "alignments.jsonl", "DONE", "selection.json")


@pytest.fixture(scope="module")
def config(dialogue_folder, upstream_folder, dialogue_vector, tmp_path_factory):
    """A sweep of seconds in eight blocks: six of edits, two of loops."""
    return Sweep(
        coef=(-1.0, 0.0, 1.5),
        task=("dialogue",),
        corrector=str(dialogue_folder),
        upstream=str(upstream_folder),
        vector=dialogue_vector.save(tmp_path_factory.mktemp("vector") / "v.safetensors"),
        layers=(0, 1),
        controls=2,
        items=ITEMS,
        problems=PROBLEMS,
        pairs=4,
        validation=2,
        temperature=0.0,
        block=2,
    )


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Runs without their figure, which takes longer than they do."""
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(run=lambda command, check: None))


@pytest.fixture(scope="module")
def prepared(config, tmp_path_factory):
    """What the driver of that sweep has once it has chosen."""
    works = {name: sweep.prepare(config, name) for name in config.task}
    with sweep.RunFolder(tmp_path_factory.mktemp("chosen") / "run", config) as folder:
        return works, sweep._choose(config, works, folder)


def test_what_is_sent_holds_no_model_and_gives_the_same_rows_elsewhere(config, prepared, monkeypatch):
    def refuse(self, protocol):
        raise AssertionError("a model is sent")

    monkeypatch.setattr(torch.nn.Module, "__reduce_ex__", refuse)
    sent = pickle.dumps(send(config, *prepared))
    assert len(sent) < 200_000
    threads = torch.get_num_threads()
    try:
        there = Worker(pickle.loads(sent))
        assert there.load() is None and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    works, grids = prepared
    plan = blocks_of(config, works, grids)
    for block in (plan["edits"][-1], plan["alignments"][1]):
        assert there.compute(block) == compute(config, works[block.task], grids[block.task], block)


def test_a_worker_with_other_models_or_versions_refuses(config, prepared):
    sent = send(config, *prepared)
    assert set(sent.models) == {"dialogue, corrector", "dialogue, upstream"}
    swapped = dict(zip(sent.models, reversed(sent.models.values()), strict=True))
    refusal = Worker(dataclasses.replace(sent, models=swapped)).load()
    assert isinstance(refusal, Refusal) and "its models are not the driver's (dialogue, corrector=" in refusal.text
    refusal = Worker(dataclasses.replace(sent, versions={**sent.versions, "torch": "0.1"})).load()
    assert isinstance(refusal, Refusal) and "torch=0.1, now" in refusal.text
    # a driver without a checkout knows no commit, which is then no difference
    unknown = {k: v for k, v in sent.versions.items() if k != "commit"}
    assert Worker(dataclasses.replace(sent, versions=unknown)).load() is None


def test_a_mistake_that_a_worker_finds_is_told_with_its_block(config, prepared, monkeypatch):
    def mistaken(*args):
        raise UserError("logits are NaN; use a smaller --coef")

    there = Worker(send(config, *prepared))
    there.load()
    monkeypatch.setattr(worker, "compute", mistaken)
    refusal = there.compute(Block("edits", 1, "dialogue", 2, 4, 10))
    assert refusal == Refusal("dialogue 2..3 of edits: logits are NaN; use a smaller --coef")


def ray_processes(folder):
    """Commands of processes that know of a cluster's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or []):
            found.append(process.info["cmdline"][:2])
    return found


@pytest.fixture
def room():
    """A folder for a cluster, of a short name, for its sockets lie in it; nothing may be left of either."""
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    yield folder
    gone(folder)
    shutil.rmtree(folder)


def gone(folder):
    """Wait until no process knows of the folder."""
    deadline = time.monotonic() + 20
    while left := ray_processes(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


class Marked(Worker):
    """Leaves a file when it is loaded and when it starts a block, so that the test knows where what is done."""

    def load(self):
        answer = super().load()
        self.mark("loaded")
        return answer

    def compute(self, block):
        self.mark("works")
        if (self.marks() / "doomed").exists() and (self.marks() / "doomed").read_text() == self.node():
            time.sleep(600)  # its node is killed while it computes, not after
        return super().compute(block)

    def marks(self):
        import os
        from pathlib import Path

        return Path(os.environ["LAB_MARKS"])

    def node(self):
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def mark(self, word):
        (self.marks() / f"{word}-{self.node()}").touch()


@contextmanager
def two_nodes():
    """A cluster of two nodes on this machine, each with room for one worker."""
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    common = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**common, "_system_config": quick})
    try:
        yield cluster, cluster.add_node(num_cpus=1)
    finally:
        cluster.shutdown()


def test_a_run_whose_node_is_killed_ends_with_the_bytes_of_a_local_one(config, room, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray")
    from ray import cloudpickle

    from steering.engines import ray as engine

    clean = run(dataclasses.replace(config, out=tmp_path / "clean"))
    for name, value in (("RAY_TMPDIR", room), ("RAY_USAGE_STATS_ENABLED", 0), ("LAB_MARKS", tmp_path)):
        monkeypatch.setenv(name, str(value))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(engine, "Worker", Marked)
    added = []
    with two_nodes() as (cluster, second):
        (tmp_path / "doomed").write_text(second.node_id)

        def killing(self, block, rows):
            add(self, block, rows)
            added.append((self.name, block))
            if len(added) == 1:
                wait_for(tmp_path / f"loaded-{second.node_id}")
            elif second in cluster.worker_nodes and (tmp_path / f"works-{second.node_id}").exists():
                cluster.remove_node(second, allow_graceful=False)

        # A run that was begun here and killed in the midst of its first block goes on there.
        there = shutil.copytree(clean, tmp_path / "there")
        for name in ("DONE", "alignments.jsonl"):
            (there / name).unlink()
        (there / "edits.jsonl").write_bytes((clean / "edits.jsonl").read_bytes()[:2000])
        add = Blocks.add
        monkeypatch.setattr(Blocks, "add", killing)
        run(dataclasses.replace(config, engine="ray", address=cluster.address, out=there))
        assert not cluster.worker_nodes, "the second node was to be killed in the midst of its work"
    said = capsys.readouterr().err
    assert "lost its worker" in said and f"retry 1 of {MAX_RETRIES}" in said and "were computed again" in said
    assert len(added) == len({*added}) == 8
    for file in FILES:
        assert (there / file).read_bytes() == (clean / file).read_bytes(), file
    assert {p.name for p in there.iterdir()} == {p.name for p in clean.iterdir()}


def wait_for(file):
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, file
        time.sleep(0.05)


class Fragile:
    """Takes its process with it at the first block it is given, unless another did so before."""

    def load(self):
        return None

    def compute(self, block, mark):
        import os
        from pathlib import Path

        if not Path(mark).exists():
            Path(mark).touch()
            os._exit(1)
        return [{"item": block.start}]


BLOCKS = [Block("edits", i, "dialogue", i, i + 1, 1) for i in range(6)]


def test_a_cluster_that_is_started_here_outlives_a_worker_and_leaves_nothing(config, tmp_path, capsys):
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with engine_of(dataclasses.replace(config, engine="ray", workers=1)):
        folder = Path(ray._private.worker._global_node.temp_dir)
        assert ray_processes(folder)

        def hire():
            actor = ray.remote(Fragile).options(num_cpus=1).remote()
            compute = SimpleNamespace(remote=lambda block: actor.compute.remote(block, str(tmp_path / "mark")))
            return Actor(actor, actor.load, compute)

        with pytest.MonkeyPatch.context() as patch:
            kill = ray.kill
            patch.setattr(ray, "kill", lambda worker: kill(worker.handle))
            assert sorted(i["item"] for _, rows in share(hire, 1, BLOCKS[:2]) for i in rows) == [0, 1]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "0..0 of edits lost its worker (ActorDiedError: " in said[0] and "retry 1 of 3" in said[0]
    assert said[1] == "1 blocks were computed again, for their workers were lost"
    assert not folder.exists() and not ray.is_initialized()
    gone(folder)


@dataclasses.dataclass(frozen=True)
class Actor:
    """A worker's handle, with what `share` calls of it."""

    handle: Any
    load: Any
    compute: Any


class Stage:
    """Actors without Ray: `answers(block, try)` is called when its answer is got; a worker that raises is gone."""

    def __init__(self, monkeypatch, answers):
        import ray

        self.answers, self.tries, self.hired, self.there = answers, Counter(), 0, set()
        monkeypatch.setattr(ray, "wait", lambda refs, num_returns, timeout: (refs[:1], refs[1:]))
        monkeypatch.setattr(ray, "get", lambda ref: ref())
        monkeypatch.setattr(ray, "kill", lambda worker: self.there.discard(worker.handle))

    def hire(self):
        self.hired += 1
        self.there.add(self.hired)
        return Actor(self.hired, *(SimpleNamespace(remote=lambda block=None: self.asked(block)) for _ in range(2)))

    def asked(self, block):
        def answer():
            self.tries[block] += 1
            return self.answers(block, self.tries[block])

        return answer


def lost():
    from ray.exceptions import ActorDiedError

    raise ActorDiedError(reported(ModuleNotFoundError("No module named 'steering'")))


def reported(error):
    """As Ray reports an exception of a worker."""
    from ray.exceptions import RayTaskError

    return RayTaskError("compute", f"Traceback (most recent call last):\n{type(error).__name__}: {error}", error)


@pytest.mark.parametrize(("n_lost", "size"), [(0, 1), (0, 9), (1, 2), (MAX_RETRIES, 1), (MAX_RETRIES, 3)])
def test_every_block_comes_back_once_however_many_workers_are_lost(monkeypatch, capsys, n_lost, size):
    pytest.importorskip("ray")

    def answers(block, attempt):
        if block is None:
            return None
        return lost() if block.index % 2 and attempt <= n_lost else [{"item": block.start}]

    stage = Stage(monkeypatch, answers)
    found = list(share(stage.hire, size, BLOCKS))
    assert sorted((b.index, rows) for b, rows in found) == [(b.index, [{"item": b.start}]) for b in BLOCKS]
    assert not stage.there and stage.hired <= min(size, 6) + 3 * n_lost
    said = capsys.readouterr().err
    assert said.count("lost its worker") == 3 * n_lost
    assert said.count(f"{3 * n_lost} blocks were computed again") == (n_lost > 0)


@pytest.mark.parametrize(
    ("answers", "kind", "expected"),
    [
        (lambda block, n: block and lost(), UserError, rf"{MAX_RETRIES + 1} times now .*No module named 'steering'"),
        (lambda block, n: block or lost(), UserError, "lost while it loaded, 6 times now"),
        (lambda block, n: Refusal("the user's mistake"), UserError, r"^the user's mistake$"),
        (lambda block, n: block and Refusal("the user's mistake"), UserError, r"^the user's mistake$"),
        (lambda block, n: block and fault(), ZeroDivisionError, "a fault of the lab"),
    ],
)
def test_workers_that_are_lost_too_often_refuse_or_fail_end_the_run(monkeypatch, answers, kind, expected):
    pytest.importorskip("ray")
    stage = Stage(monkeypatch, answers)
    with pytest.raises(kind, match=expected):
        list(share(stage.hire, 2, BLOCKS))
    assert not stage.there


def fault():
    raise reported(ZeroDivisionError("a fault of the lab")).as_instanceof_cause()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine": "ray", "workers": -1}, "workers=-1 is below 0"),
        ({"engine": "ray", "gpus_per_worker": 0.0}, "gpus_per_worker=0.0 is not above 0"),
        ({"engine": "ray", "device": "cuda:1"}, "choose --device cuda"),
        ({"address": "auto"}, "--address is about a cluster"),
        ({"workers": 3}, "--workers is about a cluster"),
        ({"block": 0}, "block=0 is below 1"),
        ({"engine": "ray"}, "pip install corrector-lab[ray]"),
    ],
)
def test_mistakes_about_engines_are_one_line_exit_code_2_and_no_run(
    config, changes, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep"])
    with pytest.raises(SystemExit) as stop:
        run_cli(Sweep, run, "steering.sweep", default=lambda: dataclasses.replace(config, **changes))
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(said) == 1 and expected in said[0], said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere"])
def test_an_address_without_a_cluster_is_a_users_mistake(config, address, tmp_path):
    pytest.importorskip("ray")
    there = dataclasses.replace(config, engine="ray", address=address, out=tmp_path / "run")
    with pytest.raises(UserError, match=f"no Ray cluster at {address} .*; give --address that of a running one"):
        run(there)
    assert not list(tmp_path.iterdir())
