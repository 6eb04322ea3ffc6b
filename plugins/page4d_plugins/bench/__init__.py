"""The attention kernels on a GPU beside what else computes attention there: checked against float64, then timed in
turn."""
