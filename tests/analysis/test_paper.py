"""The one command: which steps run, what a failure leaves, and that a finished step is not run again."""

import json

import pytest

from analysis import paper
from analysis.paper import Paper, Step, run
from corrector.errors import UserError

WRITE = (
    "import json, pathlib, sys; out = pathlib.Path(sys.argv[-1 if sys.argv[-2] == '--out' else -2]); "
    "out.mkdir(exist_ok=True); (out / 'argv').write_text(json.dumps(sys.argv)); (out / 'DONE').write_text('{}')"
)


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Two steps that write a run folder, and one that fails; run as `python -c` in place of `python -m`."""
    made = (Step("toy-a", ("a",), trains=True), Step("toy-b", ("b",), alone=True), Step("bad-toy", ("bad",)))
    monkeypatch.setattr(paper, "STEPS", made)
    module = tmp_path / "modules"
    module.mkdir()
    for name in ("a", "b"):
        (module / f"{name}.py").write_text(WRITE)
    (module / "bad.py").write_text("raise SystemExit(2)")
    monkeypatch.setenv("PYTHONPATH", str(module))
    return made


def test_chosen_steps_run_and_only_those_that_train_are_told_to(steps, tmp_path, capsys):
    out = tmp_path / "paper"
    folders = run(Paper(out=out, only=("toy-a", "toy-b"), retrain=True, jobs=2))
    assert [f.name for f in folders] == ["toy-a", "toy-b"]
    assert json.loads((out / "toy-a" / "argv").read_text())[-1] == "--retrain"
    assert "--retrain" not in json.loads((out / "toy-b" / "argv").read_text())
    assert (out / "paper.md").read_text().startswith("# The paper's claims")
    assert "not run" in capsys.readouterr().out
    assert "-m a --out" in (out / "toy-a.log").read_text()


def test_a_failed_step_is_named_after_the_others_ran(steps, tmp_path):
    out = tmp_path / "paper"
    with pytest.raises(UserError, match=r"1 steps failed: read .*bad-toy\.log"):
        run(Paper(out=out))
    assert (out / "toy-a" / "DONE").is_file() and (out / "toy-b" / "DONE").is_file()
    assert (out / "paper.md").is_file()


def test_a_step_that_only_trains_is_kept_as_shipped_unless_told_to_retrain(steps, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper, "STEPS", (Step("toy-a", ("a",), kept=True),))
    monkeypatch.setattr(paper, "SHIPPED", tmp_path / "shipped")
    shipped = tmp_path / "shipped" / "toy-a"
    shipped.mkdir(parents=True)
    (shipped / "DONE").write_text("{}")
    assert run(Paper(out=tmp_path / "paper")) == [shipped]
    assert "the shipped runs stand: toy-a" in capsys.readouterr().out
    assert run(Paper(out=tmp_path / "paper", retrain=True)) == [tmp_path / "paper" / "toy-a"]
    assert "--retrain" not in json.loads((tmp_path / "paper" / "toy-a" / "argv").read_text())


def test_an_unknown_step_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="no step begins so; there are rounds-dialogue"):
        run(Paper(out=tmp_path, only=("nothing",)))


def test_every_step_names_a_command_that_is_there():
    import importlib.util

    for step in paper._steps():
        assert importlib.util.find_spec(step.command[0]), step
