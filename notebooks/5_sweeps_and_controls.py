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
# # 5. Sweeps, and the controls without which no curve counts
#
# **Questions.** Does the correction vector do what a random direction of the same length does not? At what cost in
# wrong rewrites? And what does a sweep look like where there is no such direction?
#
# **Needs.** The models that ship with the lab; about three minutes on one core. Smaller sizes when
# `CORRECTOR_LAB_SMOKE` is set, as in the tests.

# %%
import os
from dataclasses import replace

from analysis.dose import dose_statistics
from analysis.tradeoff import report as report_tradeoff
from analysis.view import view
from steering.sweep import Sweep
from steering.sweep import run as run_sweep

SMOKE = bool(os.environ.get("CORRECTOR_LAB_SMOKE"))
n_pairs, n_validation, n_items, n_problems = (60, 20, 16, 0) if SMOKE else (240, 40, 60, 20)
coefs = (-2.0, 0.0, 2.0) if SMOKE else (-2.0, -1.0, 0.0, 1.0, 2.0)

# %% [markdown]
# ## The whole battery
#
# `controls="full"` adds to the sweep: 20 random directions and 5 orthogonal to the vector, all of its length; fits on
# *shuffled* labels; the direction of sentence *length*, and the vector without it; the vector of another layer; and,
# where the model's vocabulary has the words, prompts that ask to copy or to rewrite.
#
# A configuration is one frozen object. The command line, this notebook and the run folder share it:
# `python -m steering.sweep --task dialogue --controls full ...` is the same run.

# %% tags=["terminal-report"]
sweep = Sweep(
    task=("dialogue",),
    corrector="dialogue-0",
    coef=coefs,
    layers=(4,),
    span="prompt_last",
    controls="full",
    pairs=n_pairs,
    validation=n_validation,
    items=n_items,
    problems=n_problems,
)
run = run_sweep(sweep)

# %% [markdown]
# How to read it:
#
# - the *slope* is edit ratio per unit of coefficient, with its interval over questions, and its ratio to the steepest
#   of the random slopes. With *n* nulls the least possible p is 1 / (n + 1);
# - the *shuffled* fits steer too. Copy against rewrite is the largest axis at this position, so even noisy labels land
#   near it, with either sign;
# - without length the vector is as steep: it is not a length direction;
# - *usable* coefficients keep 95 % of the corrections well formed. Nothing is judged outside them.

# %%
view(run)

# %% [markdown]
# ## What it costs
#
# A dose moves along a curve of false rewrites (edited though right) and missed rewrites (copied though wrong).

# %%
tradeoff = report_tradeoff(run)

# %% [markdown]
# ## Steer only where it is needed
#
# With `gate` a sentence is steered only if the vector's own projection says "rewrite". Compare the false rewrites at
# +1 with those above.

# %% tags=["terminal-report"]
gated_run = run_sweep(replace(sweep, coef=(0.0, 1.0), controls=2, gate="prompt_last", problems=0))
view(gated_run)

# %% [markdown]
# ## Doses that compare
#
# `coef_unit="norm"` counts in mean residual norms, so that vectors and layers of unlike length compare.

# %% tags=["terminal-report"]
norm_run = run_sweep(replace(sweep, coef=(-0.5, 0.0, 0.5), controls=2, coef_unit="norm", problems=0))
view(norm_run)

# %% [markdown]
# ## Where there is nothing to steer
#
# The same place in the arithmetic corrector. The vector of the last prompt token is short there (its *dose*, in the
# title of the table, is its share of the residual norm), it tells little apart (notebook 2), and no coefficient moves
# the edits. That, too, is a result, of this place and these doses. It needs enough pairs: fitted on 60 the vector is
# mostly noise, longer than it should be, and at +2 it breaks a few sentences, which looks like a slope.

# %% tags=["terminal-report"]
flat_run = run_sweep(
    Sweep(
        task=("arithmetic",),
        corrector="arithmetic-l",
        coef=coefs,
        layers=(4,),
        span="prompt_last",
        controls=5,
        pairs=240,
        validation=n_validation,
        items=n_items,
        problems=0,
    )
)
view(flat_run)

# %% [markdown]
# ## What was found

# %%
steep = dose_statistics(run)["tasks"]["dialogue"]
flat = dose_statistics(flat_run)["tasks"]["arithmetic"]
print(f"dialogue: slope {steep['slope']:.2f}, {steep['ratio']:.1f} times the steepest of {steep['n_null']} nulls")
print(f"arithmetic: slope {flat['slope']:.3f} [{flat['slope_low']:.3f}, {flat['slope_high']:.3f}]")
assert steep["slope_low"] > 0 and steep["ratio"] > 1.5
assert steep["copied_at_lowest"] > steep["copied_unsteered"], "negative coefficients copy"
assert not flat["steers"] and abs(flat["slope"]) < 0.1
