"""A tiny random model that knows every word of task dialogue, its folder, and a vector of it."""

import inspect
import json
import re

import pytest
import torch

from corrector.tasks.dialogue import grammar, lexicon
from steering.vectors import SteeringVector


def writer(make_lm, eos):
    """A random model of two layers that writes words behind spaces, full stops and the end token, weighted by `eos`.

    So an align loop can read what it wrote, and sentences and answers end soon.
    """
    source = inspect.getsource(grammar) + inspect.getsource(lexicon)
    words = sorted(set(re.findall(r"[A-Za-z]+", source)))
    pieces = [piece for word in words for piece in (word, word.capitalize())]
    lm = make_lm("llama", texts=[*pieces, *(f" {piece}" for piece in pieces)], n_layers=2)
    head = lm.model.lm_head.weight
    for token, i in lm.tokenizer.get_vocab().items():
        # A logit of 0 is never the largest among hundreds of random ones.
        if not re.fullmatch(r" [A-Za-z]+|\.|<eos>", token):
            head[i].zero_()
    head[lm.tokenizer.convert_tokens_to_ids(".")] *= 2.5
    head[lm.eos_id] *= eos
    return lm


def save(lm, folder):
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    card = {"template": "lab", "role": "corrector", "recipe": {"task": "dialogue"}, "model_organism": True}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def dialogue_lm(make_lm):
    """A corrector of sorts; leave it as it was found."""
    return writer(make_lm, eos=2.5)


@pytest.fixture(scope="session")
def dialogue_folder(dialogue_lm, tmp_path_factory):
    """The model as `corrector.models.load` finds it."""
    return save(dialogue_lm, tmp_path_factory.mktemp("dialogue") / "model")


@pytest.fixture(scope="session")
def upstream_folder(make_lm, tmp_path_factory):
    """An upstream whose answers hold several sentences."""
    return save(writer(make_lm, eos=1.6), tmp_path_factory.mktemp("upstream") / "model")


@pytest.fixture(scope="session")
def dialogue_vector(dialogue_lm):
    """Random directions of norm 12 at both layers, read at prompt_last, with an empty card."""
    g = torch.Generator().manual_seed(7)
    drawn = {k: torch.randn(32, generator=g) for k in range(2)}
    directions = {k: 12 * v / v.norm() for k, v in drawn.items()}
    return SteeringVector(
        directions, "diff_means", "resid_post", "prompt_last", dialogue_lm.fingerprint, "lab", "random"
    )
