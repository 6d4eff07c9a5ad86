"""Gain against cost: the counts of a small run, and convergence of curves that are known."""

import numpy as np
import pytest
import torch

from analysis.experiments.costs import Sizes, run
from analysis.experiments.meter import metered
from analysis.rounds import load_answers
from analysis.sizes import columns, converged, report, sizes_statistics
from corrector import tasks
from corrector.errors import UserError
from corrector.models import load

SMALL = {"corrector": ("arithmetic-s", "arithmetic-m"), "rounds": 1, "problems": 3}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(Sizes(**SMALL, out=tmp_path_factory.mktemp("runs") / "sizes"))


def test_every_corrector_and_k_has_a_cost_and_no_corrector_is_fed_where_it_does_not_act(finished):
    rows, correctors = load_answers(finished)
    assert len(rows) == 2 * 3 * 3 and [c["corrector"] for c in correctors] == ["arithmetic-s", "arithmetic-m"]
    for row in rows:
        assert row["seconds"] > 0 and row["upstream_tokens"] > 0
        assert (row["corrector_tokens"] == 0) == (row["k"] == 0)
    of = columns([r for r in rows if r["corrector"] == "arithmetic-m"], correctors[1])
    assert of["work"].shape == (3, 3) and (of["work"][2] > of["work"][0]).all()


def test_larger_correctors_cost_more_and_findings_name_what_the_claims_ask(finished, capsys):
    numbers = sizes_statistics(finished)
    ratio = {f["subject"]: f["value"] for f in numbers["findings"] if f["key"] == "arithmetic/sizes/work ratio"}
    assert 1 < ratio["arithmetic-s"] < ratio["arithmetic-m"]
    keys = {f["key"] for f in numbers["findings"]}
    assert {"arithmetic/sizes/correct/larger", "arithmetic/sizes/correct/later"} <= keys
    report(finished)
    assert "3 problems one at a time" in capsys.readouterr().out
    assert (finished / "summary.csv").read_text().count("\n") == 7


def test_convergence_is_the_first_k_that_reaches_nine_tenths():
    gains = np.repeat(np.array([[0.0], [0.5], [0.9], [1.0]]), 4, axis=1)
    k, draws = converged(gains)
    assert k == 2 and set(draws) == {2}
    assert converged(gains[::-1])[0] == 0, "with no gain at the end the first k has reached it"


def test_fed_tokens_are_those_of_the_forwards_and_a_model_counts_once():
    lm = load("arithmetic-s")
    ids = lm.encode(tasks.get("arithmetic").problems("test", 1)[0].question, "", "").ids
    with metered([lm]) as cost:
        lm.model(input_ids=torch.tensor([ids, ids]))
        lm.model(torch.tensor([ids[:3]]))
    assert cost.tokens == [2 * len(ids) + 3] and cost.seconds > 0
    with metered([lm]) as again:
        pass
    assert again.tokens == [0], "hooks of the last measurement are gone"
    with pytest.raises(UserError, match="given twice"), metered([lm, lm]):
        pass


@pytest.mark.parametrize("change", [{"rounds": 0}, {"problems": 1}, {"corrector": ()}, {"task": ("a", "b")}])
def test_impossible_sizes_are_refused(change, tmp_path):
    with pytest.raises(UserError, match="choose 1 and 2 at least"):
        run(Sizes(**{**SMALL, **change}, out=tmp_path / "run"))
