"""Eight-bit stages: statistics of activations, rounding of weights, the choice of layers."""
