"""The network a second time, written as the definitions read: loops and float64."""
