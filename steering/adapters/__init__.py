"""The same interventions through other libraries' own hooks; torch hooks are the reference.

`transformer_lens` and `nnsight` are imported on first use.
"""

from steering.adapters.bridge import steer_transformer_lens
from steering.adapters.generation import Backend, generate_steered

__all__ = ["Backend", "generate_steered", "steer_transformer_lens"]
