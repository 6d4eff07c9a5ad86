"""The claims of Stream Aligner, what run folders measured under their names, and the verdicts."""
