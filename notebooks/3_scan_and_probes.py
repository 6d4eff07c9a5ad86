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
# # 3. The LAT scan, and probes beside their baselines
#
# **Questions.** At which layer and which token does the corrector's state say "rewrite"? Does a probe know more than
# the words of the sentence do?
#
# **Needs.** The models that ship with the lab; about one minute on one core. Smaller sizes when
# `CORRECTOR_LAB_SMOKE` is set, as in the tests.

# %%
import os

from analysis.onset import load_curves, table_row
from analysis.view import view
from probes.classify import Classify, chosen
from probes.classify import run as run_probes
from probes.scan import Scan
from probes.scan import run as run_scan

SMOKE = bool(os.environ.get("CORRECTOR_LAB_SMOKE"))
n_pairs, n_items, n_resamples = (40, 20, 200) if SMOKE else (200, 100, 1000)
n_train, n_validation, n_test = (60, 30, 60) if SMOKE else (240, 80, 150)

# %% [markdown]
# ## The scan
#
# For each layer a direction is fitted on training questions. Then the corrector corrects test sentences, and every
# token that it writes is scored at every layer. Scores are z-scores on neutral tokens, so that the growing norm of
# later layers does not colour them.

# %% tags=["terminal-report"]
scan = run_scan(
    Scan(corrector=("dialogue-0",), task="dialogue", pairs=n_pairs, items=n_items, resamples=n_resamples, tokens=12)
)

# %% [markdown]
# What is seen: two maps (copied and rewritten sentences; layer by output token, first layer at the bottom), the same in
# the published variant, and three curves over layers. `p` is the last token of the prompt. The table says at which
# layer each reading first leaves chance (onset) and where it stops growing (saturation), with intervals.

# %%
view(scan)

# %% [markdown]
# ## The same for arithmetic
#
# The arithmetic corrector recomputes a step and ignores the number it was given. Its scan shows what a task without a
# clear direction looks like.

# %% tags=["terminal-report"]
sums = run_scan(
    Scan(corrector=("arithmetic-l",), task="arithmetic", pairs=n_pairs, items=n_items, resamples=n_resamples, tokens=12)
)

# %%
view(sums)

# %% [markdown]
# ## Probes
#
# A probe is a classifier on the activations. Here it predicts whether the corrector edits the sentence. Each probe
# stands beside what it must beat: layer 0, an untrained model, the model before correction training, and surface
# features such as a bag of words, length or perplexity. *Selectivity* is the accuracy less that of the same classifier
# on random labels.

# %%
probes = run_probes(
    Classify(
        task="dialogue",
        corrector="dialogue-0",
        label=("was_edited",),
        classifier=("mass_mean", "logistic"),
        span=("prompt_last",),
        train=n_train,
        validation=n_validation,
        test=n_test,
        resamples=n_resamples,
    )
)

# %%
view(probes)

# %% [markdown]
# The probe is near perfect, and so is the bag of words: in this task badness is a matter of phrases. A high number
# alone therefore does not show that the corrector *represents* badness. And a probe reads; it does not show that what
# it reads is used. Notebook 6 erases the direction to find out.
#
# The same rows are there as a table to work with:

# %%
table = chosen(probes)
table[["source", "span", "classifier", "layer", "auroc", "low", "high", "selectivity"]]

# %% [markdown]
# ## What was found

# %%
deciding, summing = (
    next(table_row(curve) for curve in load_curves(run) if curve["reader"] == "direction") for run in (scan, sums)
)
best = table.groupby("source")["auroc"].max()
print(f"scan: AUROC {deciding['max']:.2f} in dialogue, {summing['max']:.2f} in arithmetic")
print(f"probe: {best['corrector']:.2f}, bag of words: {best['bag_of_words']:.2f}")
assert deciding["max_low"] > 0.9 and deciding["onset"] is not None
assert summing["max"] < deciding["max"] - 0.1
assert best["corrector"] > 0.9 and best["bag_of_words"] > 0.9, "no probe beats the words here"
