import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from corrector.errors import UserError
from probes import backends
from probes.capture import capture_all
from probes.spans import Sequence
from probes.storage import Stored, capture_to

N, SHARD = 11, 4
WANTED = {"sites": ("resid_post", "z"), "layers": [3, 1], "spans": ("prompt_last", "last")}


def made(n: int = N) -> Iterator[Sequence]:
    """Rows of unlike lengths, one after the other."""
    for i in range(n):
        length = 3 + (5 * i) % 7
        ids = tuple(10 + (7 * i + j) % 60 for j in range(length))
        yield Sequence(ids, {"last": (1, length), "prompt_last": (length - 1, length)}, f"p{i // 2}")


def tensors(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "env.json"}


class Backend:
    """The reference, counting its forwards and failing at one of them."""

    def __init__(self, fail_at: int = 0) -> None:
        self.forwards, self.fail_at = 0, fail_at

    def __call__(self, lm, batch, wanted, visit):
        self.forwards += 1
        if self.forwards == self.fail_at:
            raise KeyboardInterrupt
        backends.get("torch")(lm, batch, wanted, visit)


def store(folder, lm, sequences=None, backend="torch", **kwargs):
    chosen = {**WANTED, "shard_size": SHARD, "batch_size": 2, "backend": backend, **kwargs}
    return capture_to(folder, lm, made() if sequences is None else sequences, **chosen)


@pytest.fixture(scope="module")
def finished(tiny_lm, tmp_path_factory) -> Path:
    return store(tmp_path_factory.mktemp("stored") / "acts", tiny_lm).folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A finished folder that a test may break."""
    return shutil.copytree(finished, tmp_path / "acts")


def test_what_is_stored_is_what_a_capture_gives(tiny_lm, tmp_path):
    expected = capture_all(tiny_lm, list(made()), **WANTED, batch_size=1)
    stored = store(tmp_path / "acts", tiny_lm, batch_size=1)
    assert len(stored) == N and stored.layers == (3, 1) and stored.sites == ("resid_post", "z")
    for (site, span), a in expected.items():
        got = stored.load(site=site, span=span)
        assert torch.equal(got.h, a.h)
        assert (got.layers, got.site, got.span, got.ids) == (a.layers, a.site, a.span, a.ids)
        assert torch.equal(stored.at(1, site, span), a.at(1))
        one = stored.load(1, site, span)
        assert one.layers == (1,) and torch.equal(one.h[:, 0], got.h[:, 1])
    parts = list(stored.parts((1, 3), "z", "last"))
    assert [len(p.ids) for p in parts] == [4, 4, 3]
    assert torch.equal(torch.cat([p.h for p in parts]), stored.load((1, 3), "z", "last").h)


def test_one_site_and_span_need_no_naming_and_half_precision_is_kept(tiny_lm, tmp_path):
    stored = store(tmp_path / "a", tiny_lm, sites=("mlp_out",), spans=("last",), dtype="bfloat16")
    assert stored.load().h.dtype == torch.bfloat16 and stored.at(3).dtype == torch.float32
    with safe_open(stored.folder / "shard-00000.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["mlp_out/last/1", "mlp_out/last/3"]
        assert file.get_tensor("mlp_out/last/1").shape == (SHARD, 32)


def test_a_generator_is_drawn_no_further_than_the_shard_at_work(tiny_lm, tmp_path):
    drawn, seen = 0, []

    def counted():
        nonlocal drawn
        for s in made():
            drawn += 1
            yield s

    def watching(lm, batch, wanted, visit):
        seen.append(drawn)
        backends.get("torch")(lm, batch, wanted, visit)

    store(tmp_path / "a", tiny_lm, counted(), watching)
    assert seen == [4, 4, 8, 8, 11, 11]


@pytest.mark.parametrize("fail_at", [1, 4, 6])
def test_an_interrupted_run_resumes_to_the_same_bytes_without_redoing_whole_shards(
    finished, tiny_lm, tmp_path, fail_at
):
    folder = tmp_path / "acts"
    clean = Backend()
    store(tmp_path / "clean", tiny_lm, backend=clean)
    assert clean.forwards == 6
    with pytest.raises(KeyboardInterrupt):
        store(folder, tiny_lm, backend=Backend(fail_at))
    with pytest.raises(UserError, match="not finished; run the same capture_to again"):
        Stored(folder)
    again = Backend()
    store(folder, tiny_lm, backend=again)
    assert again.forwards == 6 - 2 * ((fail_at - 1) // 2)
    assert tensors(folder) == tensors(tmp_path / "clean")
    assert {k: v for k, v in tensors(folder).items() if k.startswith("shard-")} == {
        k: v for k, v in tensors(finished).items() if k.startswith("shard-")
    }
    once_more = Backend()
    assert len(store(folder, tiny_lm, backend=once_more)) == N
    assert once_more.forwards == 0


def test_a_kill_between_file_and_row_or_within_either_leaves_nothing_half(finished, copied, tiny_lm):
    (copied / "DONE").unlink()
    rows = (copied / "shards.jsonl").read_bytes()
    lines = rows.splitlines(keepends=True)
    (copied / "shards.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:30])  # the row was being written
    (copied / "shard-00002.safetensors").write_bytes(b"half a file")  # and its file is not what it should be
    (copied / "shard-00002.tmp").write_bytes(b"half")
    store(copied, tiny_lm)
    assert tensors(copied) == tensors(finished)


def test_a_shard_that_was_cut_or_lost_is_refused(copied, tiny_lm):
    file = copied / "shard-00001.safetensors"
    whole = file.read_bytes()
    for damage in (lambda: file.write_bytes(whole[:-4]), file.unlink):
        damage()
        for use in (lambda: Stored(copied), lambda: store(copied, tiny_lm)):
            with pytest.raises(UserError, match=r"shard-00001\.safetensors is missing or damaged"):
                use()


def test_a_folder_belongs_to_one_capture_of_one_model_and_its_sequences(copied, tiny_lm, make_lm, tmp_path):
    before = tensors(copied)
    for change, named in (
        ({"layers": [1]}, "layers="),
        ({"sites": ("z",)}, "sites="),
        ({"spans": ("last",)}, "spans="),
        ({"dtype": "float16"}, "dtype="),
        ({"shard_size": 5}, "shard_size="),
        ({"reduction": "last"}, "reduction="),
    ):
        with pytest.raises(UserError, match=rf"holds another run: {named}.*choose another --out"):
            store(copied, tiny_lm, **change)
    with pytest.raises(UserError, match="fingerprint="):
        store(copied, make_lm(seed=1))
    with pytest.raises(UserError, match=r"shard-00002.* was made of other sequences"):
        store(copied, tiny_lm, (*list(made())[:-1], Sequence((5,) * 9, {"last": (0, 9), "prompt_last": (8, 9)})))
    with pytest.raises(UserError, match="holds 3 shards, the sequences make 2"):
        store(copied, tiny_lm, made(8))
    store(tmp_path / "eight", tiny_lm, made(8))
    with pytest.raises(UserError, match="finished with 2 shards; give more sequences another folder"):
        store(tmp_path / "eight", tiny_lm, made(9))
    assert tensors(copied) == before
    assert len(store(copied, tiny_lm, batch_size=3, padding="left")) == N


def test_users_mistakes(finished, tiny_lm, tmp_path):
    with pytest.raises(UserError, match="no sequences"):
        store(tmp_path / "none", tiny_lm, iter([]))
    with pytest.raises(UserError, match="shard_size=0 is below 1"):
        store(tmp_path / "none", tiny_lm, shard_size=0)
    with pytest.raises(UserError, match=r"layer=7 not in 0\.\.3"):
        store(tmp_path / "none", tiny_lm, layers=[7])
    with pytest.raises(UserError, match="backend='jax' is not one of"):
        store(tmp_path / "none", tiny_lm, backend="jax")
    assert not (tmp_path / "none").exists()
    bad = [*made(6), Sequence((5, 6), {"last": (1, 1), "prompt_last": (1, 2)}, "empty")]
    with pytest.raises(UserError, match=r"item 6 \(problem 'empty'\).*holds no token"):
        store(tmp_path / "bad", tiny_lm, bad)
    with pytest.raises(UserError, match="holds no stored activations"):
        Stored(tmp_path / "nothing")
    stored = Stored(finished)
    with pytest.raises(UserError, match="layer=2 not among the stored"):
        stored.at(2, "z", "last")
    with pytest.raises(UserError, match="site='' is not one of the stored resid_post, z"):
        stored.at(1)
    with pytest.raises(UserError, match="span='output' is not one of the stored"):
        stored.load(1, "z", "output")
