# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Mechanism: where the choice is made, and whether the direction is used
#
# **Questions.** From which layer on can the choice between copying and rewriting be read as a *token*? What is left of
# the choice when the direction is erased? At which layers does steering act?
#
# **Needs.** The models that ship with the lab; about four minutes on one core. Smaller sizes when
# `CORRECTOR_LAB_SMOKE` is set, as in the tests.

# %%
import os

import pandas as pd
import torch

import corrector
from analysis.drawing import draw
from analysis.map import map_statistics
from analysis.view import view
from corrector import tasks
from corrector.records import read_rows
from probes.capture import capture
from probes.contrasts import as_corrected, contrast_pairs, is_copy
from probes.scanning.lens import is_written, lens_logits
from probes.spans import sequence
from steering.erase import Erase
from steering.erase import run as run_erase
from steering.erase_tables import lines_of
from steering.mapping import Map
from steering.mapping import run as run_map

SMOKE = bool(os.environ.get("CORRECTOR_LAB_SMOKE"))
n_pairs, n_validation, n_items, n_draws = (60, 40, 20, 2) if SMOKE else (240, 100, 40, 3)
layers = (5,) if SMOKE else (4, 5)

# %% [markdown]
# ## The logit lens
#
# Whatever is copied begins with the same mark, and every rewrite with one of four words. So the first token *is* the
# choice. The logit lens asks each layer: what would the model write if it stopped here?

# %%
lm, task = corrector.load("dialogue-0"), tasks.get("dialogue")
pairs = as_corrected(lm, task, contrast_pairs(task, "test", n_items))
h = capture(lm, [sequence(lm, pair) for pair in pairs], "resid_post", span="prompt_last").h
first = [lm.encode_target(pair.correction)[0] for pair in pairs]
copies = torch.tensor([is_copy(pair) for pair in pairs])
readable = is_written(lm, h, first).float()

# %% [markdown]
# Share of items whose first token is already the lens' likeliest, by layer, and the mean *logit gap*: the logit of the
# best opening of a rewrite less that of the mark of a copy. It should be positive for what is rewritten and negative
# for what is copied.

# %%
mark = first[int(copies.nonzero()[0])]
openers = sorted({token for token, copied in zip(first, copies, strict=True) if not copied})
logits = [lens_logits(lm, h[:, layer]) for layer in range(lm.n_layers)]
gap = torch.stack([of[:, openers].amax(-1) - of[:, mark] for of in logits], 1)
lens = pd.DataFrame(
    {
        "readable": readable.mean(0),
        "gap, rewritten": gap[~copies].mean(0),
        "gap, copied": gap[copies].mean(0),
    }
).rename_axis("layer")
lens.round(2)

# %% [markdown]
# Most choices can be read at the first layer already, and all of them only at the last: badness is a matter of phrases
# in this task, which one layer of attention can collect. The lens reads with the last layer's eyes, so a low number in
# early layers does not mean that nothing is there.
#
# ## Erase the direction
#
# LEACE removes everything that a linear reader could use to tell copied from rewritten, and moves the state as little
# as it can. If the corrector uses that information, its decisions must suffer. *Gap* is the share of rewrites among
# sentences that it rewrote before, less that among those that it copied: 1 with nothing erased.
#
# Controls: random erasures of the same rank, and `matched` ones, which move the state as much and leave the direction
# in.

# %% tags=["terminal-report"]
erased = run_erase(
    Erase(
        corrector="dialogue-0",
        layers=layers,
        controls=n_draws,
        items=n_items,
        pairs=n_pairs,
        validation=n_validation,
    )
)

# %%
view(erased)

# %% [markdown]
# The gap falls and does not reach 0: the direction is used, and it is not all that there is. Erasing as much of the
# state elsewhere does far less.
#
# ## The map: layer by coefficient
#
# Steering at one layer at a time, at every coefficient, with nulls at each layer. p is corrected over all layers and
# bands that were looked at; few nulls allow no small p, and the verdict says how many it would take.

# %% tags=["terminal-report"]
mapped = run_map(
    Map(
        corrector="dialogue-0",
        coef=(-2.0, 0.0, 2.0) if SMOKE else (-2.0, -1.0, 0.0, 1.0, 2.0),
        band=1 if SMOKE else 3,
        controls=n_draws,
        items=n_items,
        validation=10 if SMOKE else 24,
        pairs=n_pairs,
    )
)
draw("map", mapped)
view(mapped)

# %% [markdown]
# ## What was found

# %%
lines = lines_of(read_rows(erased, "edits"), n_items, seed=0)
of = {(line["eraser"], tuple(line["layers"])): line["gap"] for line in lines}
matched = [gap for (eraser, layers), gap in of.items() if eraser.startswith("matched") and layers == (5,)]
slopes = [place["slope_ends"] for place in map_statistics(mapped)["places"]]
print(f"gap after LEACE at layer 5: {of['leace', (5,)]:.2f}; after matched erasures: {min(matched):.2f} at the least")
assert lens["readable"].iloc[-1] > 0.99 and lens["readable"].iloc[0] < 0.97
assert lens["gap, rewritten"].iloc[-1] > 0 > lens["gap, copied"].iloc[-1]
assert of["leace", (5,)] < min(matched) - 0.1, "what is erased counts, not only how much"
assert min(slopes) > 0, "positive coefficients correct more, at every layer"
