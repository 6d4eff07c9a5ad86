"""The memory that a sweep will need, from its configuration, its items and its models, before any cell is computed."""

from __future__ import annotations

from collections.abc import Mapping

from corrector.decoding import Tricks
from corrector.memory import Memory, Share, added, decoding, held
from corrector.memory.loops import looping
from corrector.models import LanguageModel
from steering.sweeping.crossing import BATCH
from steering.sweeping.plan import BATCH_SIZE, FULL_CONTROLS, LOOPS, Sweep
from steering.sweeping.selection import SOURCES
from steering.sweeping.work import Work

WIDE = 4
"""Bytes of a captured float32."""


def needs_of(config: Sweep, works: Mapping[str, Work]) -> Memory:
    """The weights of all tasks' models, and the most that edits, loops or captured activations take at a time."""
    weights = added([held(lm.model) for lm in models_of(works)])
    turns = [turn for work in works.values() for turn in _turns(config, work)]
    most = max(turns, key=lambda turn: turn.beside_weights)
    return Memory(weights.parameters, weights.weights, most.cache, most.logits, most.activations)


def models_of(works: Mapping[str, Work]) -> list[LanguageModel]:
    """Every model of a run once, correctors and upstreams in this process; a run holds those of all tasks at once."""
    holders = [holder for work in works.values() for holder in (work, work.upstream)]
    models = [lm for holder in holders if (lm := getattr(holder, "lm", None)) is not None]
    return list({id(lm.model): lm for lm in models}.values())


def _turns(config: Sweep, work: Work) -> list[Memory]:
    """What a task's kinds of work take, one after the other."""
    lm, new = work.lm, work.task.max_sentence_tokens
    steered = len({c for c in config.coef if c})
    coefficients = steered + 1
    cells = coefficients + steered * (FULL_CONTROLS if config.controls == "full" else config.controls)
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in work.pairs]
    longest = max(map(len, prompts))
    draft = sorted(end - start + 1 for start, end in (p.spans["last"] for p in prompts))[-config.block :]
    tricks = Tricks.of(config.tricks)
    share = Share(
        rows=min(BATCH, cells * min(config.block, len(prompts))),
        length=longest + new,
        fed=longest + max(draft),
        logits=max(draft) + 1,
        kept_tokens=(BATCH // cells + 2) * longest if tricks.shared else 0,
        kept_logits=sum(draft),
    )
    d = lm.model.config.get_text_config().hidden_size
    spans = len({s.read for s in SOURCES})
    captured = 2 * config.pairs * lm.n_layers * d * spans * WIDE
    turns = [decoding(lm, share), Memory(0, 0, 0, 0, captured)]
    if work.loops:
        drawn = [p.question for file in LOOPS for p in work.loops.get(file, [])]
        turns.append(
            looping(
                drawn,
                work.upstream,
                lm,
                rows=config.block,
                cells=coefficients,
                sentence=new,
                tricks=tricks,
                batch_size=BATCH_SIZE,
            )
        )
    return turns
