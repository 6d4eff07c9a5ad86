"""GSM8K (2110.14168): grade-school word problems with annotated solution steps."""

from corrector.tasks.gsm8k.task import Gsm8k

__all__ = ["Gsm8k"]
