"""Write directions into a model: per row in the lab's decoder, or as a context manager on any model."""

from steering.interventions.banks import Coef, LayerVectors, Vector, make_bank, of_head
from steering.interventions.composition import Composition, Edit, compose, one_per_row
from steering.interventions.context import Steered, steer, steer_all
from steering.interventions.gates import Gate
from steering.interventions.intervention import Intervention
from steering.interventions.writes import Write

__all__ = [
    "Coef",
    "Composition",
    "Edit",
    "Gate",
    "Intervention",
    "LayerVectors",
    "Steered",
    "Vector",
    "Write",
    "compose",
    "make_bank",
    "of_head",
    "one_per_row",
    "steer",
    "steer_all",
]
