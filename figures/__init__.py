"""Figures: one module each, drawn from run folders only, without torch."""
