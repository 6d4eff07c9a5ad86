"""A reward or cost model as a judge: any sequence classifier with one output that transformers loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from corrector import models
from corrector.errors import UserError
from corrector.judges.base import Duel, Verdict, scored
from corrector.models import DTYPES, LanguageModel
from corrector.prompts import template
from corrector.records.kept import Kept


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with its tokenizer; `fingerprint` is of its weights and vocabulary."""

    model: Any
    tokenizer: Any
    ref: str
    fingerprint: str

    @property
    def window(self) -> int:
        """Tokens that it reads at most; a text beyond is not judged, since cutting it would change it."""
        limits = getattr(self.model.config, "max_position_embeddings", None), self.tokenizer.model_max_length
        return min(n for n in limits if n is not None)


def load_reward_model(ref: str, device: str = "cpu", dtype: str = "float32") -> RewardModel:
    """Load a local folder or hub id; safetensors only, no remote code.

    Raises UserError for what is no whole model of that kind, or has more than one output.
    """
    import transformers
    from safetensors import SafetensorError

    cure = "give a folder or hub id of a sequence classifier with one output, saved as safetensors"
    folder = Path(ref).expanduser()
    if not ref or (not folder.exists() and not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", ref)):
        raise UserError(f"--model={ref!r} is no folder here and cannot be a hub id; {cure}")
    safe: dict[str, Any] = {
        "local_files_only": folder.exists() or not models._hub_answers(),
        "trust_remote_code": False,
    }
    auto: Any = transformers.AutoModelForSequenceClassification
    source = str(folder) if folder.exists() else ref
    try:
        model, report = auto.from_pretrained(
            source, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True, **safe
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **safe)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"reward model {ref!r} cannot be loaded ({reason}); {cure}") from error
    if absent := sorted(report["missing_keys"]):
        raise UserError(f"reward model {ref!r} lacks {len(absent)} weights, {absent[0]} first; {cure}")
    if model.config.num_labels != 1:
        raise UserError(f"reward model {ref!r} has {model.config.num_labels} outputs; {cure}")
    model = model.to(device).eval()
    return RewardModel(model, tokenizer, ref, LanguageModel(model, tokenizer, template("plain"), ref).fingerprint)


class ModelJudge:
    """Scores each answer alone; `lower_is_better` turns a cost model's scores round. Scores are kept by text.

    The text is `pattern` with {question} and {answer} in it; without a pattern the tokenizer's chat template, or,
    where it has none, question and answer as a pair of texts.
    """

    def __init__(
        self, reward: RewardModel, kept: Kept, pattern: str = "", lower_is_better: bool = False, batch_size: int = 16
    ) -> None:
        self.reward, self.kept, self.pattern = reward, kept, pattern
        self.aspects = ("cost" if lower_is_better else "reward",)
        self.lower_is_better, self.n_new = lower_is_better, 0
        # Such models find a padded row's last token by the padding token; one without can only take rows alone.
        self.batch_size = batch_size if reward.model.config.pad_token_id is not None else 1
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is below 1; choose --batch-size 1 or more")
        if pattern:
            check_pattern(pattern)

    def verdicts(self, duels: Sequence[Duel]) -> list[Verdict]:
        texts = [(d.question, a.text) for d in duels for a in (d.own, d.other) if a is not None]
        scores = self.scores(texts)
        return [self._verdict(d, scores) for d in duels]

    def said(self) -> str:
        return f"reward model {self.reward.ref}: {self.n_new} answers scored anew"

    def scores(self, texts: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float | None]:
        """The model's own score of every (question, answer); None where it is longer than the model's window."""
        found: dict[tuple[str, str], float | None] = {}
        todo: list[tuple[tuple[str, str], dict[str, Any], list[int], list[int]]] = []
        for pair in dict.fromkeys(texts):
            ids, types = self._encode(*pair)
            sent = {"model": self.reward.fingerprint, "dtype": str(self.reward.model.dtype), "ids": ids, "types": types}
            if (there := self.kept.get(self.kept.key(sent))) is not None:
                found[pair] = there["score"]
            elif len(ids) > self.reward.window:
                found[pair] = None
            else:
                todo.append((pair, sent, ids, types))
        todo.sort(key=lambda item: len(item[2]))
        with tqdm(total=len(todo), desc="judging", unit="answer", disable=not todo) as bar:
            for start in range(0, len(todo), self.batch_size):
                batch = todo[start : start + self.batch_size]
                values = self._forward([ids for _, _, ids, _ in batch], [types for *_, types in batch])
                for (pair, sent, _, _), value in zip(batch, values, strict=True):
                    self.kept.keep(self.kept.key(sent), sent, {"score": value})
                    found[pair] = value
                self.n_new += len(batch)
                bar.update(len(batch))
        return found

    def _verdict(self, duel: Duel, scores: dict[tuple[str, str], float | None]) -> Verdict:
        own = scores[duel.question, duel.own.text]
        other = scores[duel.question, duel.other.text] if duel.other else None
        if own is None or (duel.other and other is None):
            return Verdict(duel.problem, self.aspects[0], "too_long", reason=f"beyond {self.reward.window} tokens")
        sign = -1.0 if self.lower_is_better else 1.0
        said = scored(duel.problem, self.aspects[0], sign * own, None if other is None else sign * other)
        return Verdict(said.problem, said.aspect, said.outcome, own, other)

    def _encode(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Tokens and their types (0, or 1 for the second text of a pair)."""
        tokenizer = self.reward.tokenizer
        if self.pattern:
            out = tokenizer(self.pattern.format(question=question, answer=answer))
        elif tokenizer.chat_template:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            out = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)
        else:
            out = tokenizer(question, answer)
        ids = list(out["input_ids"])
        if not ids:
            raise UserError("a question and answer have no tokens for the reward model; give another --model")
        return ids, list(out.get("token_type_ids", []))

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]], types: list[list[int]]) -> list[float]:
        model = self.reward.model
        longest, pad = max(map(len, rows)), model.config.pad_token_id or 0

        def padded(values: list[list[int]], fill: int) -> torch.Tensor:
            return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in values], device=model.device)

        inputs = {"input_ids": padded(rows, pad), "attention_mask": padded([[1] * len(row) for row in rows], 0)}
        if all(types):
            inputs["token_type_ids"] = padded(types, 0)
        scores: list[float] = model(**inputs).logits.float().squeeze(-1).tolist()
        if any(score != score for score in scores):
            raise UserError(f"reward model {self.reward.ref!r} scores nan; choose --dtype float32")
        return scores


def check_pattern(pattern: str) -> None:
    """Raise UserError unless the pattern holds {question} and {answer} once each, and no other field."""
    try:
        text = pattern.format(question="\x00", answer="\x01")
    except (LookupError, ValueError, AttributeError):
        text = ""
    if text.count("\x00") != 1 or text.count("\x01") != 1:
        raise UserError(f"--pattern={pattern!r} must hold {{question}} and {{answer}} once each, and no other field")
