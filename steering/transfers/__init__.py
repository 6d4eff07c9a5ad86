"""What a transfer is made of: maps between residual spaces, and slopes of the vectors carried over."""
