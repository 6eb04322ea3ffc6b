"""Prediction heads: small networks on kept layers, a stage each."""
