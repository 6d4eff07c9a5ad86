"""How the lab's objects show themselves: coloured diffs and small HTML tables, with all text escaped."""
