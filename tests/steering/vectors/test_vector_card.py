"""A steering vector shows its card: where it is from, what each layer is worth, and what it was made of."""

from __future__ import annotations

import torch

from steering.vectors import SteeringVector
from steering.vectors.cards import layer_table

LAYER = {"auroc": 0.9876, "low": 0.9, "high": 1.0, "norm": 2.0, "dose": 0.25, "explained_variance": None}
CARD = {
    "contrast": "copy_rewrite",
    "task": "dialogue",
    "n": 50,
    "n_validation": 40,
    "data_hash": "0123abcd",
    "layers": {"0": LAYER, "2": {**LAYER, "explained_variance": 0.5}},
    "cosine": {"lat": {"0": 0.9, "2": -0.125}},
}


def vector(ref: str = "dialogue-0") -> SteeringVector:
    directions = {k: torch.tensor([3.0, 4.0]) for k in (0, 2)}
    return SteeringVector(directions, "diff_means", "resid_post", "prompt_last", "f00d", "lab", ref, CARD)


def test_a_card_names_model_data_and_layers() -> None:
    html = vector()._repr_html_()
    for words in ("dialogue-0 (fingerprint f00d)", "template lab", "resid_post, prompt_last", "0123abcd"):
        assert words in html
    assert "50 matched pairs, tested on 40 of other questions" in html
    assert "0.988" in html and "0.900 to 1.000" in html and "cos lat" in html and "-0.125" in html


def test_some_layers_have_lines_of_their_own_only() -> None:
    assert layer_table(vector().only([2])).row_count == 1


def test_a_combined_vector_shows_norms_and_parents() -> None:
    html = (2.0 * vector())._repr_html_()
    assert "2 a" in html and vector().digest in html and ">10<" in html and "AUROC" not in html


def test_names_are_shown_as_text() -> None:
    assert "<script" not in vector("<script>x</script>")._repr_html_()


def test_its_plain_form_is_one_line() -> None:
    assert repr(vector()) == "SteeringVector(diff_means of 'dialogue-0': resid_post, prompt_last, layers 0, 2, d=2)"
