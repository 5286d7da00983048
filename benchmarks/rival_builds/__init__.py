"""Programs that quantize a model with a tool of others, run by that tool's own environment.

They import the standard library, numpy, the tool, and `benchmarks.rival_builds.job`: nothing of onnxq, and
nothing else of the benchmarks.
"""
