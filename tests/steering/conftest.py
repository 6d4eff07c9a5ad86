"""A tiny random model that knows every word of task dialogue, its folder, and a vector of it."""

import inspect
import json
import re

import pytest
import torch

from corrector.tasks.dialogue import grammar, lexicon
from steering.vectors import SteeringVector


@pytest.fixture(scope="session")
def dialogue_lm(make_lm):
    """Two layers, random weights; leave it as it was found.

    It writes words behind spaces, full stops and the end token only, so that an align loop can read it, and ends
    its sentences soon.
    """
    source = inspect.getsource(grammar) + inspect.getsource(lexicon)
    words = sorted(set(re.findall(r"[A-Za-z]+", source)))
    pieces = [piece for word in words for piece in (word, word.capitalize())]
    pieces += [f" {piece}" for piece in pieces]
    lm = make_lm("llama", texts=pieces, n_layers=2)
    for token, i in lm.tokenizer.get_vocab().items():
        # A logit of 0 is never the largest among hundreds of random ones.
        if not re.fullmatch(r" [A-Za-z]+|\.|<eos>", token):
            lm.model.lm_head.weight[i].zero_()
    for end in (".", "<eos>"):
        lm.model.lm_head.weight[lm.tokenizer.convert_tokens_to_ids(end)] *= 2.5
    return lm


@pytest.fixture(scope="session")
def dialogue_folder(dialogue_lm, tmp_path_factory):
    """The model as `corrector.models.load` finds it."""
    folder = tmp_path_factory.mktemp("dialogue") / "model"
    dialogue_lm.model.save_pretrained(folder)
    dialogue_lm.tokenizer.save_pretrained(folder)
    card = {"template": "lab", "role": "corrector", "recipe": {"task": "dialogue"}, "model_organism": True}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def dialogue_vector(dialogue_lm):
    """Random directions of norm 4 at both layers, read at prompt_last, with an empty card."""
    g = torch.Generator().manual_seed(7)
    drawn = {k: torch.randn(32, generator=g) for k in range(2)}
    directions = {k: 4 * v / v.norm() for k, v in drawn.items()}
    return SteeringVector(
        directions, "diff_means", "resid_post", "prompt_last", dialogue_lm.fingerprint, "lab", "random"
    )
