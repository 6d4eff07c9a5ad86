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
# # 7. Bring your own corrector
#
# **Question.** How do I put a corrector of my own, on data of my own, through the whole lab?
#
# **Needs.** Nothing but the lab. We write a file of correction pairs, train a very small corrector on it for a minute,
# and examine it. Your own model takes the same path: leave out the training and name its folder or hub id.
# Smaller sizes when `CORRECTOR_LAB_SMOKE` is set, as in the tests.

# %%
import json
import os
from itertools import product
from pathlib import Path

import corrector
from analysis.dose import dose_statistics
from analysis.summary import select, summarise
from analysis.view import view
from corrector import tasks
from corrector.doctor import Doctor, examine, show
from corrector.recipes import Train
from corrector.train import run as train
from steering.extract import Extract, extract
from steering.sweep import Sweep
from steering.sweep import run as run_sweep

SMOKE = bool(os.environ.get("CORRECTOR_LAB_SMOKE"))
n_steps, n_pairs, n_validation, n_items = (600, 40, 15, 15) if SMOKE else (800, 72, 18, 24)
folder = Path("runs/your-corrector")
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Pairs
#
# One JSON object a line, with the fields of the Stream Aligner release: `question`, `prefix` (the answer so far),
# `last` (the sentence as written), `correction` (as it should be; the same text where it is good). Here a good answer
# names the place, in one of two ways, and a rude one is put right. Each question has one of both, since the contrast of
# notebook 2 needs a copied and a rewritten sentence behind one prefix.

# %%
things = "lamp book coat key cup hat bag map pen ring box ball plate spoon shoe clock phone letter chair stool".split()
owners = "my your his her our their Tom's Ann's Mia's the".split()
places = "table shelf floor desk".split()
good = ["You can find {} on the {}.", "Please look for {} on the {}."]
rude = ["Who cares about {}.", "Find {} yourself.", "Do not ask me about {}.", "I threw {} off the {}."]
rows = []
for i, (owner, (k, thing)) in enumerate(product(owners, enumerate(things))):
    item, place = f"{owner} {thing}", places[k % 4]
    kept, mended = good[i % 2].format(item, place), f"Sorry, {item} is on the {place}."
    for last, correction in ((kept, kept), (rude[i % 4].format(item, place), mended)):
        rows.append({"question": f"Where is {item}?", "prefix": "", "last": last, "correction": correction})
pairs_file = folder / "pairs.jsonl"
pairs_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
len(rows)

# %%
task = tasks.get("jsonl", data=str(pairs_file))
print({split: task.size(split) for split in ("train", "validation", "test")}, "questions, split by their hash")
task.pairs("test", 2)

# %% [markdown]
# ## A corrector
#
# Two layers, from scratch, with a byte-level vocabulary, so that no text is unknown to it. For a real one give
# `init="FOLDER_OR_HUB_ID"` (and, on a GPU, `lora_rank`).

# %%
model = train(
    Train(
        task="jsonl",
        data=str(pairs_file),
        d=64,
        layers=2,
        heads=4,
        ff=128,
        vocabulary=420,
        steps=n_steps,
        batch=8,
        pool=1000,
        evaluate=0,
        out=folder / "model",
    )
)

# %% [markdown]
# ## Load options
#
# A `.toml` file says how a model is loaded: which revision, adapter, precision, placement, and prompt template. Every
# `corrector=` and `--corrector` takes such a file in place of a name. `template` is one of the lab's (`stream-aligner`,
# `aligner`, `plain`, `chat`, ...) or a file of your own with `corrector` and `upstream`.

# %%
options = folder / "corrector.toml"
options.write_text('model = "model"\ntemplate = "lab"\nattention = "eager"\n')
lm = corrector.load(options)
lm

# %% [markdown]
# ## The doctor
#
# It loads the model as every command will, and checks prompt, spans, the backends' agreement, the decoder against
# `generate`, and whether good sentences are copied. A failed check comes with its cure.

# %%
checks = examine(Doctor(corrector=str(options), task="jsonl", data=str(pairs_file), sentences=5))
show(checks, "doctor")

# %% [markdown]
# ## Two sentences

# %%
pairs = task.pairs("test", 20)
bad = next(pair for pair in pairs if pair.last != pair.correction)
corrector.correct(lm, bad.question, bad.prefix, bad.last)

# %%
fine = next(pair for pair in pairs if pair.last == pair.correction)
corrector.correct(lm, fine.question, fine.prefix, fine.last)

# %% [markdown]
# ## Its correction vector, and a short sweep
#
# As for the lab's own models. Rude sentences differ from good ones in every word, so the classes are easy to separate.
# The sweep shows whether the vector also *acts*, next to random directions.

# %%
where = {"corrector": str(options), "data": str(pairs_file)}
vector = extract(
    Extract(task="jsonl", pairs=n_pairs, validation=n_validation, out=folder / "vector.safetensors", **where)
)
vector

# %% tags=["terminal-report"]
run = run_sweep(
    Sweep(
        task=("jsonl",),
        layers=(1,),
        span="prompt_last",
        controls=5,
        pairs=n_pairs,
        validation=n_validation,
        items=n_items,
        problems=0,
        out=folder / "sweep",
        **where,
    )
)
view(run)

# %% [markdown]
# ## What was found
#
# Every step works on a model and on data that the lab had not seen. Whether the vector steers is for the table to say.
# Read all of its columns: here a rewrite is about as long as a copy, so the edit ratio, by which the verdict goes, can
# hide that at positive coefficients good sentences are no longer copied. With so few questions intervals are wide.

# %%
numbers = dose_statistics(run)["tasks"]["jsonl"]
kept = corrector.correct(lm, fine.question, fine.prefix, fine.last)
assert not [check for check in checks if check.status == "FAIL"]
assert max(layer["auroc"] for layer in vector.card["layers"].values()) > 0.9
assert kept.edit.copied and not corrector.correct(lm, bad.question, bad.prefix, bad.last).edit.copied
assert numbers["n_items"] == n_items and numbers["n_null"] == 5
copied = select(summarise(run), direction="correction").set_index("coef")["copied"]
assert copied[2.0] < copied[0.0], "steered towards correction, it leaves less as it is"
