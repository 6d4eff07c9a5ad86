"""Controls: null directions and prompts that a steering curve must be told apart from."""

from steering.controls.battery import Battery, drawn_battery, full_battery, load_battery
from steering.controls.drawn import orthogonal_controls, other_layers, random_controls
from steering.controls.fitted import length_controls, shuffled_controls
from steering.controls.states import control_origins

__all__ = [
    "Battery",
    "control_origins",
    "drawn_battery",
    "full_battery",
    "length_controls",
    "load_battery",
    "orthogonal_controls",
    "other_layers",
    "random_controls",
    "shuffled_controls",
]
