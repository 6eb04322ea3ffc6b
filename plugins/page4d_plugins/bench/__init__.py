"""The attention kernels on a GPU beside other implementations: checked against float64, then timed in turn."""
