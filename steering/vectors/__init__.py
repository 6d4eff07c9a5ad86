"""Steering vectors: a direction per layer with a card, the card as a table, and where projections are counted from."""

from steering.vectors.vector import SteeringVector

__all__ = ["SteeringVector"]
