"""Finished runs whose numbers are known, for the tests of ablations and of their figure."""

from pathlib import Path

from analysis.experiments.variants import Ablations
from corrector.records import RunFolder

N = 8
"""Problems."""
VARIANTS = [
    {"group": "base", "name": "base", "base": "base"},
    {"group": "identity", "name": "identity 0", "base": "base"},
    {"group": "untrained", "name": "start", "base": "base"},
    {"group": "upstream", "name": "own upstream", "base": "own upstream"},
    {"group": "upstream", "name": "temperature 2", "base": "own upstream"},
]
HELPFUL = {"base": 1.0, "identity 0": 0.25, "own upstream": 2.0, "temperature 2": 1.5}
"""What the corrected answers score above those of the upstream alone, in seed 0; .125 more in seed 1."""


def write_run(path: Path, rounds: tuple[Path, ...] = ()) -> Path:
    """A base that copies the good and rewrites the bad, and a variant that rewrites everything; two seeds."""
    with RunFolder(path, Ablations(rounds=rounds, seeds=(0, 1), out=path)) as folder:
        for variant in [v["name"] for v in VARIANTS]:
            if variant in HELPFUL:
                folder.append("answers", [answer(variant, None, i, float(i % 3), 40) for i in range(N)])
            for seed in (0, 1):
                who = {"variant": variant, "seed": seed}
                folder.append("models", [{**who, "parameters": 9, "trained_tokens": 5, "model_organism": True}])
                if variant in HELPFUL:
                    gain = HELPFUL[variant] + 0.125 * seed
                    folder.append("answers", [answer(variant, seed, i, i % 3 + gain, 50) for i in range(N)])
                if variant in ("base", "identity 0", "start"):
                    high = 0.0 if variant == "start" else 100.0
                    sides = [{"problem": f"p{i}", "rewritten": i + high, "copied": float(i)} for i in range(N)]
                    folder.append("directions", [{**who, **side} for side in sides])
                if variant in ("base", "identity 0"):
                    folder.append("edits", [{**who, **edit(i, variant != "base")} for i in range(N)])
                    folder.append("steered", [{**who, **steered(i)} for i in range(3)])
        folder.write_once("about", {"task": "dialogue", "outcomes": ["helpful"], "variants": VARIANTS})
        folder.finish()
    return path


def answer(variant, seed, i, helpful, tokens):
    """A row of answers.jsonl."""
    return {
        **{"variant": variant, "seed": seed, "problem": f"p{i}", "outcomes": {"helpful": helpful}, "tokens": tokens},
        "answer": "so",
    }


def edit(i, everything):
    """A row of edits.jsonl: even problems are right, odd ones wrong."""
    wrong = i % 2 == 1
    copied = not wrong and not everything
    return {
        **{"problem": f"p{i}", "last": "a", "correction": "a" if copied else "b", "edit_ratio": float(not copied)},
        **{"copied": copied, "length_ratio": 1.0, "is_wrong": wrong, "badness": None, "well_formed": True},
        **{"valid": i > 0, "clear": "bad" if wrong else None},
    }


def steered(i):
    """A row of steered.jsonl: half an edit ratio a unit of coef, a random direction that falls, one that is flat."""
    ratios = {"correction": [i, i + 0.5, i + 1.0], "random-00": [1.0, 0.9, 0.8], "random-01": [1.0, 1.0, 1.0]}
    return {"problem": f"p{i}", "edit_ratio": ratios, "well_formed": {name: [True] * 3 for name in ratios}}


def write_rounds(path: Path) -> Path:
    """A run of analysis.rounds whose answers grow by 3 tokens a round."""
    with RunFolder(path, Ablations(out=path)) as folder:
        for k in (0, 1, 2, None):
            rows = [{"problem": f"p{i}", "tokens": 10 + i + 3 * (5 if k is None else k)} for i in range(N)]
            who = {"task": "dialogue", "corrector": "one", "mode": "stream", "k": k}
            folder.append("answers", [{**who, **row, "outcomes": {"helpful": 0.0}} for row in rows])
        about = {"task": "dialogue", "corrector": "one", "outcomes": ["helpful"], "model_organism": True}
        folder.write_once("about", {"correctors": [about]})
        folder.finish()
    return path
