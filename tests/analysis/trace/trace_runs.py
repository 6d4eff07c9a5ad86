"""Made-up finished sweeps whose every row is known."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COEFS = (-1.0, 1.0)
NASTY = "Tom has <script>window.owned = 1</script> 3 apples & 'pens'."
LASTS = ("Tom has 3 apples.", NASTY, "Ann buys 5 pens.", "Mia sells the bags.")
CORRECTIONS = {-1.0: "{}", 0.0: "So {}", 1.0: "So {} Ann has 5 coins <b>now</b>."}
TEXTS = (*LASTS, *(text.format(last) for text in CORRECTIONS.values() for last in LASTS), "How many does Tom have")
"""Whatever a tokenizer must know to read the rows."""


def edit(item: int, direction: str, coef: float) -> dict[str, Any]:
    last = LASTS[item % len(LASTS)]
    correction = CORRECTIONS[coef].format(last)
    return {
        **{"task": "dialogue", "coef": coef, "direction": direction, "layers": [1], "span": "prompt_last"},
        **{"item": item, "problem": f"p{item}", "question": f"How many does Tom have {item}?", "prefix": ""},
        **{"last": last, "correction": correction, "distance": len(correction) - len(last)},
        **{"edit_ratio": round((len(correction) - len(last)) / len(last), 6), "copied": last == correction},
        **{"length_ratio": round(len(correction) / len(last), 6), "is_wrong": item % 2 == 1, "is_right_after": None},
        **{"well_formed": True, "ended": True, "kl": abs(coef) / 7, "applied": 1, "kind": "bad", "badness": None},
    }


def edits(n_items: int, directions: Sequence[str] = ("random-00", "random-01")) -> list[dict[str, Any]]:
    cells = [("none", 0.0), *((d, c) for d in ("correction", *directions) for c in COEFS)]
    return [edit(item, direction, coef) for direction, coef in cells for item in range(n_items)]


def alignments(n_problems: int) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for direction, coef in (("upstream", 0.0), ("none", 0.0), *(("correction", c) for c in COEFS)):
        for k in range(n_problems):
            lasts = [LASTS[k % len(LASTS)], NASTY]
            alone = direction == "upstream"
            corrected = [None if alone else CORRECTIONS[coef].format(last) for last in lasts]
            answer = " ".join(c or last for c, last in zip(corrected, lasts, strict=True))
            rounds = [{"last": a, "correction": b, "ended": True} for a, b in zip(lasts, corrected, strict=True)]
            out.append(
                {
                    **{"task": "dialogue", "coef": coef, "direction": direction, "problem": f"p{k}"},
                    **{"question": f"How many {k}?", "gold": str(k), "answer": answer, "stopped": "end"},
                    **{"outcomes": {"correct": float(coef > 0), "score": coef + k / 8}, "rounds": rounds},
                }
            )
    return out


def write_run(
    folder: Path,
    edit_rows: Sequence[dict[str, Any]],
    loop_rows: Sequence[dict[str, Any]] = (),
    finished: bool = True,
    **config: Any,
) -> Path:
    folder.mkdir(parents=True)
    done: dict[str, Any] = {}
    for name, rows in (("edits", edit_rows), ("alignments", loop_rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        done[name] = {"rows": len(rows), "sha256": "0123456789abcdef" * 4}
    (folder / "config.json").write_text(json.dumps({"method": "diff_means", "seed": 0, **config}))
    (folder / "env.json").write_text(
        json.dumps({"git": {"commit": "c0ffee" * 6, "dirty": True}, "packages": {"a": "1"}})
    )
    if finished:
        (folder / "DONE").write_text(json.dumps(done))
    return folder
