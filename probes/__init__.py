"""Read the residual stream: spans, sites, capture, contrasts, directions and how well they separate."""
