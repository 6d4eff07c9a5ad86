"""Direct preference optimisation (2305.18290) by trl: the corrected answer is preferred to the uncorrected one."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.recipes import Train
from corrector.tasks.base import Problem, Task
from corrector.training.draws import draws_at
from corrector.training.loop import WARM_UP

LOG_EVERY = 50


def preference_rows(lm: LanguageModel, task: Task, pool: list[Problem], config: Train) -> list[dict[str, str]]:
    """(prompt, chosen, rejected) texts of every question that the run draws, in order; end tokens are left to trl."""
    rows: list[dict[str, str]] = []
    for step in range(config.steps):
        for draw in draws_at(step, pool, task, config):
            prompt = lm.template.render_upstream(draw.example.problem.question, "").text
            rows.append({"prompt": prompt, "chosen": draw.example.answer, "rejected": draw.draft})
    return rows


def check_rows(lm: LanguageModel, texts: list[dict[str, str]], rows: Any) -> int:
    """Trained tokens of trl's own rows; RuntimeError unless they are all there, whole, with the lab's tokens."""
    if len(rows) != len(texts):
        raise RuntimeError(f"trl kept {len(rows)} of {len(texts)} preference rows; none may be dropped")
    n_tokens = 0
    for text, row in zip(texts, rows, strict=True):
        for name in ("chosen", "rejected"):
            whole = lm.tokenizer(text["prompt"] + text[name], add_special_tokens=False)["input_ids"]
            if row["prompt_ids"] + row[f"{name}_ids"] != [*whole, lm.eos_id]:
                raise RuntimeError(f"trl cut or changed the {name} answer {text[name][:80]!r}")
            n_tokens += len(row[f"{name}_ids"])
    return n_tokens


def prefer(lm: LanguageModel, task: Task, pool: list[Problem], config: Train, folder: Path) -> dict[str, float]:
    """Train `lm.model` by DPO on the draws of a run, in their order; nothing is written, so it does not resume.

    loss = -log sigmoid(beta (log-ratio of chosen - log-ratio of rejected)) + nll * mean of -log p(chosen token), the
    ratios being to the model before. The second term is that of 2404.19733, eq. 2, by token: without it DPO lowers
    the chosen answers as well, and where the upstream would never write them the text falls apart.
    Rows whose draft needed no correction stay in: their gradient is exactly zero, and `no_preference` counts them.
    Returns trained tokens (both answers), the mean loss (nats) and the share of rows that come out preferred over the
    last LOG_EVERY steps, and minutes.
    """
    try:
        from datasets import Dataset
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer
    except ImportError:
        raise UserError("method='dpo' needs trl; pip install 'corrector-lab[dpo]'") from None

    class Silent(DPOTrainer):
        """Trains without a word to the hub, which trl's trainers tell of every run."""

        def _send_telemetry(self) -> None: ...

    texts = preference_rows(lm, task, pool, config)
    began = time.monotonic()
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch,
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "beta": config.beta,
        "loss_type": ["sigmoid", "sft"] if config.nll else ["sigmoid"],
        "loss_weights": [1.0, config.nll] if config.nll else [1.0],
        "learning_rate": config.lr,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "warmup_steps": WARM_UP,
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "weight_decay": 0.05,
        "max_grad_norm": 1.0,
        "seed": config.seed,
        "bf16": False,
        "use_cpu": lm.device.type == "cpu",
        "gradient_checkpointing": False,
        "save_strategy": "no",  # its checkpoints hold pickles
        "logging_steps": min(LOG_EVERY, config.steps),
        "report_to": "none",
    }
    # trl patches the forward of what it trains, so it is given copies.
    model, start = copy.deepcopy(lm.model), copy.deepcopy(lm.model)
    trainer = Silent(
        model=model,
        ref_model=start,
        args=DPOConfig(**settings),
        train_dataset=Dataset.from_list(texts),
        processing_class=lm.tokenizer,
    )
    n_tokens = check_rows(lm, texts, trainer.train_dataset)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    lm.model.load_state_dict(model.state_dict())
    lm.model.eval()
    return {
        "minutes": (time.monotonic() - began) / 60,
        "trained_tokens": float(n_tokens),
        "loss": float(logs[-1]["loss"]),
        "no_preference": float(sum(t["chosen"] == t["rejected"] for t in texts)),
        "preferred": float(logs[-1]["rewards/accuracies"]),
    }
