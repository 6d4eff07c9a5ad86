"""Write to the residual stream: vectors, operators, interventions, controls and the sweep."""
