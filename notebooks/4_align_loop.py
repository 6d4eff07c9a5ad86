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
# # 4. The align loop, step by step
#
# **Questions.** What happens in one round? Does correcting every sentence make the whole answer better, and how many
# rounds does it take?
#
# **Needs.** The models that ship with the lab; about one minute on one core. Smaller sizes when
# `CORRECTOR_LAB_SMOKE` is set, as in the tests.

# %%
import os
from pathlib import Path

import corrector
from analysis.drawing import draw
from analysis.loops import Rounds
from analysis.loops import run as run_rounds
from analysis.rounds import rounds_statistics
from analysis.view import view
from corrector import tasks
from corrector.align import Align
from corrector.align import run as run_align
from corrector.evaluate import Evaluate
from corrector.evaluate import run as evaluate
from corrector.tasks.arithmetic import needs_carry, steps_of
from corrector.upstreams import Choice, Request, ask, upstream_of

SMOKE = bool(os.environ.get("CORRECTOR_LAB_SMOKE"))
n_problems, n_rounds = (24, 2) if SMOKE else (100, 4)

# %% [markdown]
# ## A problem, and who writes
#
# The task makes word problems and knows their answers. The upstream is a small model that often forgets a carry.

# %%
task = tasks.get("arithmetic")
lm = corrector.load("arithmetic-s")
problems = task.problems("test", n_problems)
upstream = upstream_of(Choice(), task, problems)
problem = next(p for p in problems if needs_carry(steps_of(p.question)[0]))
print(problem.question)
print("gold:", problem.gold)

# %% [markdown]
# ## Round 0 by hand
#
# The upstream writes one sentence; the corrector reads question, answer so far, and that sentence.

# %%
(sentence,) = ask(upstream, [Request(problem, "", 0)])
correction = corrector.correct(lm, problem.question, "", sentence.strip())
correction

# %% [markdown]
# ## The rounds after it
#
# The corrected sentence becomes part of the answer, and the upstream goes on from there. Its next sentences build on
# the right number, where on its own it would carry the mistake along.

# %%
answer = correction.correction
for k in range(1, 12):
    (sentence,) = ask(upstream, [Request(problem, answer, k)])
    if not sentence.strip():
        break
    answer += " " + corrector.correct(lm, problem.question, answer, sentence.strip()).correction
print(answer)

# %% [markdown]
# ## The same by the lab
#
# `corrector.align` does this for many problems at once, and keeps every round. An alignment shows itself as a table of
# its rounds.

# %%
alignments = corrector.align(problems, upstream, lm, task=task)
mine = next(a for a in alignments if a.problem == problem)
mine

# %% [markdown]
# Without the corrector (mode `upstream`) the sentences stand as they were written:

# %%
alone = corrector.align([problem], upstream, task=task, mode="upstream")[0]
alone

# %% [markdown]
# ## Does it help? A paired comparison
#
# Two runs over the same problems, with and without the corrector; the difference is taken problem by problem, with a
# bootstrap interval over problems and McNemar's test.

# %% tags=["terminal-report"]
with_corrector, without = Path("runs/align-with"), Path("runs/align-without")
rows = run_align(Align(task="arithmetic", corrector="arithmetic-s", problems=n_problems, out=with_corrector))
rows_alone = run_align(Align(task="arithmetic", problems=n_problems, mode="upstream", out=without))
view(with_corrector)

# %%
findings = evaluate(Evaluate(with_corrector, against=without, out=Path("runs/align-evaluated")))

# %% [markdown]
# ## How many rounds?
#
# The corrector acts in the first *k* rounds only, then the upstream finishes alone (`stream`) or the corrector does
# (`continue`). *Omega* is wins less losses over all problems. In the paper the two modes converge; these correctors
# are poor writers, so `continue` stays behind here.

# %% tags=["terminal-report"]
rounds = run_rounds(
    Rounds(
        task=("arithmetic",),
        corrector=("arithmetic-s",),
        mode=("stream", "continue"),
        rounds=n_rounds,
        problems=n_problems,
    )
)
draw("rounds", rounds)
view(rounds)

# %% [markdown]
# ## What was found

# %%
right, right_alone = (sum(row["outcomes"]["correct"] for row in of) / n_problems for of in (rows, rows_alone))
print(f"right: {right:.2f} with the corrector, {right_alone:.2f} without, n = {n_problems}")
assert mine.answer.split() == answer.split(), "the loop does what we did by hand"
assert right > right_alone + 0.15
gain = next(
    p
    for p in rounds_statistics(rounds)["points"]
    if p["k"] is None and p["outcome"] == "correct" and p["mode"] == "stream"
)
assert gain["gain_low"] > 0, "the interval of the gain leaves 0 out"
