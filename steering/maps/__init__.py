"""What the layer x coefficient map is made of: bands of layers, and conditions to fit vectors under."""
