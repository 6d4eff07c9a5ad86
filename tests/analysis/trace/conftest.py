"""A made-up run with a vector of a tiny model, on which projections can be checked."""

import json

import pytest
import torch
from trace_runs import TEXTS, alignments, edits, write_run

from corrector.models import load
from steering.vectors import SteeringVector


@pytest.fixture(scope="session")
def corrector_folder(make_lm, tmp_path_factory):
    """A random model that knows every word of the made-up rows, as `corrector.models.load` finds it."""
    lm = make_lm("llama", texts=TEXTS, n_layers=3)
    folder = tmp_path_factory.mktemp("corrector") / "model"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    (folder / "card.json").write_text(json.dumps({"template": "lab"}))
    return folder


@pytest.fixture(scope="session")
def vector(corrector_folder):
    """A vector of all its layers, with norms on its card and no thresholds."""
    lm = load(corrector_folder)
    directions = {k: torch.randn(32, generator=torch.Generator().manual_seed(k)) * (k + 1) for k in range(3)}
    card = {"layers": {str(k): {"mean_norm": 2.0 + k} for k in range(3)}}
    about = ("diff_means", "resid_post", "prompt_last", lm.fingerprint, "lab", "tiny")
    return SteeringVector(directions, *about, card=card)


@pytest.fixture(scope="session")
def traced_run(corrector_folder, vector, tmp_path_factory):
    """A finished run of 5 items and 3 problems with its vector."""
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "made-up", edits(5), alignments(3), corrector=str(corrector_folder)
    )
    vector.save(folder / "vector-dialogue.safetensors")
    return folder
