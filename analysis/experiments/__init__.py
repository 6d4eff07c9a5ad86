"""How the paper's experiments are run: who answers, at what cost, and what is varied."""
