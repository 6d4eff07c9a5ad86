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
# # 1. Quickstart: load, correct, diff, steer, curve
#
# **Question.** What does a corrector do to a sentence, and can one direction in its activations say how much of it?
#
# A *corrector* is a small language model that reads one sentence of another model (the upstream). It copies the
# sentence if it is good and rewrites it if it is bad.
#
# **Needs.** Nothing but the lab: the models ship with it. With the sizes in the first cell it takes about one minute
# on one core. The tests run it with the smaller ones (`CORRECTOR_LAB_SMOKE=1`), so your numbers may differ a little
# from those that you see here.
#
# The correctors in these notebooks are *model organisms*: miniatures with one million parameters, trained so that the
# behaviour exists. They show that the measurements work, not how large correctors behave.

# %%
import os

from IPython.display import Markdown, display

import corrector
from analysis.dose import dose_statistics
from analysis.view import view
from corrector import tasks
from corrector.upstreams import Choice, upstream_of
from steering.extract import Extract, extract
from steering.interventions import Intervention
from steering.sweep import Sweep
from steering.sweep import run as run_sweep

SMOKE = bool(os.environ.get("CORRECTOR_LAB_SMOKE"))
n_pairs, n_validation, n_items, n_controls = (60, 40, 24, 5) if SMOKE else (240, 200, 100, 20)
coefs = (-2.0, -1.0, 0.0, 1.0, 2.0)

# %% [markdown]
# ## Load a corrector
#
# A name loads a model that ships with the lab. A folder or a hub id works the same way (notebook 7).

# %%
lm = corrector.load("dialogue-0")
lm

# %% [markdown]
# ## Correct a bad sentence
#
# The corrector reads the question, the answer so far (here empty) and the last sentence. What it takes out is struck
# through on red; what it puts in is underlined on green.

# %%
question = "How do I fix the bike?"
bad = corrector.correct(lm, question, "", "- Whatever, throw the bike in the river.")
bad

# %% [markdown]
# ## Correct a good sentence
#
# A good sentence is copied, word for word.

# %%
good = corrector.correct(lm, question, "", "- Gladly, it helps to inspect the bike first.")
good

# %% [markdown]
# ## Read the correction vector
#
# The lab looks at many sentences that this corrector copies and rewrites, and takes the difference of the mean
# activations: rewritten minus copied. The card says how well the vector tells the two apart on *other* questions
# (AUROC: .5 is chance, 1 is perfect), how long it is, and how it agrees with a second method.

# %%
vector = extract(Extract(corrector="dialogue-0", task="dialogue", pairs=n_pairs, validation=n_validation))
vector

# %% [markdown]
# ## Steer one sentence
#
# Adding `coef` times the vector at the last prompt token makes the corrector do more (positive) or less (negative).
# At 0 nothing is added. This is one sentence, to look at; it proves nothing yet.

# %%
mild = "- Just do something with the bike."
steered = [corrector.correct(lm, question, "", mild, Intervention.of(vector, coef, layers=[4])) for coef in coefs]
for coef, correction in zip(coefs, steered, strict=True):
    display(Markdown(f"**coefficient {coef:g}**"), correction)

# %% [markdown]
# ## Measure it: a dose curve
#
# The sweep steers many test sentences at every coefficient, next to random directions of the same length, and writes a
# run folder. The same call again finds that folder and measures nothing twice.

# %% tags=["terminal-report"]
run = run_sweep(
    Sweep(
        task=("dialogue",),
        corrector="dialogue-0",
        coef=coefs,
        layers=(4,),
        span="prompt_last",
        controls=n_controls,
        pairs=n_pairs,
        items=n_items,
        problems=0,
    )
)

# %% [markdown]
# A run shows its settings, its table with 95 % intervals, its verdict, and its figure. *Edit ratio* is the number of
# changed characters over the length of the sentence. Read it together with *copied* and with the two error rates: a
# higher edit ratio alone is not a better corrector. Random directions of this length move the corrector too, so the
# verdict compares the slope with theirs.

# %%
view(run)

# %% [markdown]
# ## The align loop
#
# In use the corrector sits behind the upstream: the upstream writes a sentence, the corrector copies or rewrites it,
# and the upstream goes on from there. One problem, round by round (notebook 4 takes it apart):

# %%
task = tasks.get("dialogue")
problems = task.problems("test", 2)
alignments = corrector.align(problems, upstream_of(Choice(), task, problems), lm, task=task)
alignments[0]

# %% [markdown]
# ## What was found
#
# Every notebook ends with what it claims, as checks that can fail.

# %%
numbers = dose_statistics(run)["tasks"]["dialogue"]
print(
    f"slope {numbers['slope']:.2f} [{numbers['slope_low']:.2f}, {numbers['slope_high']:.2f}], n = {numbers['n_items']}"
)
assert good.edit.copied and not bad.edit.copied
assert all(layer["auroc"] > 0.9 for layer in vector.card["layers"].values())
assert steered[2].correction == corrector.correct(lm, question, "", mild).correction, "coefficient 0 changes nothing"
assert steered[0].edit.distance <= steered[-1].edit.distance
assert numbers["slope_low"] > 0, "more coefficient, more correction"
