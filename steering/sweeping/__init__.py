"""How a sweep is computed: its plan, cells and rows, what is selected, and where coefficients stop making sense."""
