"""The runtime in C++ beside the one in Python."""
