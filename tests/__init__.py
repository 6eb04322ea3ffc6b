"""Behaviour, by the rooms of the code; what tests share is in `support`."""
