"""How a model is found and loaded: options, the hub, adapters, placement."""
