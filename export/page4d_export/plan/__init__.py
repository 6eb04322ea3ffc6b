"""What an export will write: stages with their shapes, weights and FLOP. No torch."""
