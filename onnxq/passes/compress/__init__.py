"""Lossy passes that make weights smaller: low rank, sparsity, entropy coding."""
