"""The LAT scan: scores of a direction over layers and output tokens, and at which layer the decision can be read."""
