"""Lossy passes that choose ranges and emit integer kernels or Q/DQ."""
