"""The trace page: one HTML file of a run, with its dose curves, rows, diffs and projections of tokens."""
