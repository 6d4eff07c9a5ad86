"""How correctors are trained: rows and their packing, the loop, its processes, states and checkpoints."""
