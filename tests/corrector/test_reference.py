import shutil
import sys

import pytest

from corrector import reference
from corrector.errors import UserError, run_cli
from corrector.recipes import RECIPES
from corrector.reference import Reference, publish, run

FILES = ("card.json", "config.json", "model.safetensors")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A references folder that holds version 1 of dialogue-0, with a file that version 2 has not."""
    monkeypatch.setattr(reference, "REFERENCES", tmp_path / "references")
    fill(tmp_path / "references" / "dialogue-0", "1", (*FILES, "leftover.json"))
    return tmp_path / "references"


def fill(folder, version, names=FILES):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(version)
    return folder


def versions(folder):
    return {p.name: p.read_text() for p in folder.iterdir()}


OLD, NEW = dict.fromkeys((*FILES, "leftover.json"), "1"), dict.fromkeys(FILES, "2")


def test_publish_replaces_the_whole_reference_and_leaves_nothing_beside_it(home, tmp_path):
    new = fill(tmp_path / "new", "2")
    assert publish(new, "dialogue-0") == home / "dialogue-0"
    assert versions(home / "dialogue-0") == NEW == versions(new)
    assert [p.name for p in home.iterdir()] == ["dialogue-0"]


def test_publish_makes_a_reference_that_was_not_there(home, tmp_path):
    publish(fill(tmp_path / "new", "2"), "dialogue-1")
    assert versions(home / "dialogue-1") == NEW and versions(home / "dialogue-0") == OLD


def test_while_files_are_copied_and_deleted_the_reference_is_whole(home, tmp_path, monkeypatch):
    copy, delete, seen = shutil.copytree, shutil.rmtree, []

    def watched(act):
        def watch(*args, **kwargs):
            act(*args, **kwargs)
            seen.append(versions(home / "dialogue-0"))

        return watch

    monkeypatch.setattr(reference.shutil, "copytree", watched(copy))
    monkeypatch.setattr(reference.shutil, "rmtree", watched(delete))
    publish(fill(tmp_path / "new", "2"), "dialogue-0")
    assert OLD in seen and NEW in seen and all(s in (OLD, NEW) for s in seen)


def test_a_copy_that_fails_leaves_the_old_reference(home, tmp_path, monkeypatch):
    def full(source, target):
        target.mkdir()
        (target / "card.json").write_text("2")
        raise OSError("no space left on device")

    with monkeypatch.context() as m, pytest.raises(OSError, match="no space"):
        m.setattr(reference.shutil, "copytree", full)
        publish(fill(tmp_path / "new", "2"), "dialogue-0")
    assert versions(home / "dialogue-0") == OLD
    publish(tmp_path / "new", "dialogue-0")
    assert versions(home / "dialogue-0") == NEW and [p.name for p in home.iterdir()] == ["dialogue-0"]


@pytest.fixture
def trained(home, tmp_path, monkeypatch):
    """Trainings that are written down instead of run."""
    asked = []

    def train(config):
        asked.append((config.recipe, config.data))
        return fill(tmp_path / f"trained-{config.recipe}", "2")

    monkeypatch.setattr(reference, "train", train)
    monkeypatch.delenv("CORRECTOR_LAB_DATA", raising=False)
    return asked


def test_references_are_trained_in_order_and_published(home, trained):
    run(Reference(names=("dialogue-1", "dialogue-0")))
    assert trained == [("dialogue-1", ""), ("dialogue-0", "")]
    assert versions(home / "dialogue-1") == versions(home / "dialogue-0") == NEW


def test_baselines_are_trained_where_named(home, trained):
    run(Reference(names=("dialogue-sft-0", "arithmetic-aligner-s-2")))
    assert trained == [("dialogue-sft-0", ""), ("arithmetic-aligner-s-2", "")]
    assert versions(home / "dialogue-sft-0") == NEW


def test_gsm8k_without_data_is_left_as_it_is_and_said_so(home, trained, monkeypatch, capsys):
    run(Reference(names=("gsm8k",)))
    assert trained == [] and "gsm8k: left as it is" in capsys.readouterr().out
    run(Reference(names=("gsm8k", "dialogue-0"), data="somewhere"))
    assert trained == [("gsm8k", "somewhere"), ("dialogue-0", "")]


def test_an_unknown_name_is_refused_before_anything_is_trained(trained, monkeypatch, capsys):
    with pytest.raises(UserError, match="reference 'poetry' is not one of dialogue-upstream"):
        run(Reference(names=("dialogue-0", "poetry")))
    monkeypatch.setattr(sys, "argv", ["reference", "--names", "poetry"])
    with pytest.raises(SystemExit) as stop:
        run_cli(Reference, run, "corrector.reference")
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(said) == 1 and trained == []


def test_by_default_every_recipe_is_a_reference():
    assert Reference().names == tuple(RECIPES)
