"""Projections against the model's own hidden states, and their columns against the diff."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trace_runs import edit

from analysis.trace.projections import aligned, pieces, traces
from corrector.models import load


def at_stops(item):
    """The rows of an item at coefficients -1, 0 and 1."""
    return [edit(item, *cell) for cell in (("correction", -1.0), ("none", 0.0), ("correction", 1.0))]


def project(run, folder, items):
    return traces(run, {"corrector": str(folder)}, "dialogue", items, 5, "cpu")


@pytest.fixture(scope="module")
def found(traced_run, corrector_folder):
    return project(traced_run, corrector_folder, [at_stops(k) for k in range(2)])


def raw(lm, vector, text):
    """h·u [layer, token] of all tokens of a prompt and a correction behind it, by the model's own outputs."""
    prompt = lm.encode("How many does Tom have 0?", "", "Tom has 3 apples.")
    ids = torch.tensor([[*prompt.ids, *lm.encode_target(text)]])
    with torch.no_grad():
        states = lm.model(ids, output_hidden_states=True).hidden_states
    # The last entry is behind the final norm, so the last layer has no oracle here.
    values = [(states[k + 1][0] @ vector.at(k) / vector.at(k).norm()).numpy() for k in range(2)]
    return prompt, np.array(values)


def test_numbers_are_the_models_own(found, traced_run, corrector_folder, vector):
    lm, item = load(corrector_folder), found["items"]["0"]
    for stop, row in enumerate(at_stops(0)):
        prompt, values = raw(lm, vector, row["correction"])
        centre = np.mean(
            [[layer[0] for layer in of["prompt_last"]["values"]] for of in found["items"].values()], axis=0
        )
        assert np.abs(centre).max() < 1e-3, "without a threshold 0 is the mean of the traced prompts' last tokens"
        got = item["corrections"][item["at"][stop]]
        start, end = prompt.spans["last"]
        unit = np.array([[2.0], [3.0]])
        offset = values[:, len(prompt) - 1 :][:, :1] / unit - np.array(item["prompt_last"]["values"])[:2]
        for part, where in ((item["last"], slice(start, end)), (got, slice(len(prompt), None))):
            assert np.allclose(np.array(part["values"])[:2] + offset, values[:, where] / unit, atol=2e-3)
            assert len(part["tokens"]) == len(part["values"][0])


def test_a_threshold_on_the_card_is_the_centre(found, tmp_path, corrector_folder, vector):
    layers = {k: {**of, "threshold": 1.5 * int(k)} for k, of in vector.card["layers"].items()}
    run = tmp_path / "run"
    dataclasses.replace(vector, card={"layers": layers}).save(run / "vector-dialogue.safetensors")
    lm = load(corrector_folder)
    got = project(run, corrector_folder, [at_stops(0)])
    prompt, values = raw(lm, vector, "")
    wanted = (values[:, len(prompt) - 1] - [0.0, 1.5]) / [2.0, 3.0]
    assert np.allclose([layer[0] for layer in got["items"]["0"]["prompt_last"]["values"]][:2], wanted, atol=2e-3)
    assert "threshold on the vector's card" in got["words"] and "names no threshold" in found["words"]


def test_corrections_are_read_once_and_their_tokens_spell_them(found):
    item = found["items"]["1"]
    assert item["at"] == [0, 1, 2] and not item["absent"]
    for stop, row in enumerate(at_stops(1)):
        assert "".join(item["corrections"][stop]["tokens"]).removesuffix("<eos>").strip() == row["correction"]
    assert found["n"] == 2 and found["of"] == 5 and found["layers"] == [0, 1, 2]


def test_a_correction_that_was_cut_off_has_no_end_token(traced_run, corrector_folder):
    rows = [{**row, "ended": False} for row in at_stops(0)]
    got = project(traced_run, corrector_folder, [rows])["items"]["0"]["corrections"][0]
    assert "<eos>" not in got["tokens"] and all(column[2] != 2 for column in got["columns"])


def test_what_cannot_be_read_is_named(traced_run, corrector_folder):
    rows = [at_stops(0)[0], {**at_stops(0)[1], "correction": "§§§"}, None]
    item = project(traced_run, corrector_folder, [rows])["items"]["0"]
    assert item["at"] == [0, None, None]
    assert item["absent"] == {"1": "the corrector's tokenizer has no tokens for this text", "2": "no row"}


def test_another_models_vector_is_refused(tmp_path, corrector_folder, vector):
    dataclasses.replace(vector, fingerprint="0" * 16).save(tmp_path / "vector-dialogue.safetensors")
    assert "fingerprint" in project(tmp_path, corrector_folder, [at_stops(0)])["absent"]


tokens = st.lists(st.sampled_from(["a", " b", " c"]), max_size=6)


@given(tokens, tokens)
def test_columns_hold_every_token_once_in_order(last, correction):
    columns = aligned(last, correction)
    assert [i for i, _, _ in columns if i >= 0] == [*range(len(last))]
    assert [j for _, j, _ in columns if j >= 0] == [*range(len(correction))]
    for i, j, same in columns:
        if same:
            assert last[i].strip() == correction[j].strip()


def test_a_first_tokens_blank_is_no_difference():
    assert aligned([" a", " b"], ["a", " b"]) == [[0, 0, 1], [1, 1, 1]]


def test_pieces_join_to_the_text(tiny_lm):
    ids = tiny_lm.encode_target("Tom has 3 apples.")
    assert "".join(pieces(tiny_lm.tokenizer, ids)) == tiny_lm.tokenizer.decode(ids)
