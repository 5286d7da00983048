"""What times models on other machines, where there is Python, onnxruntime and numpy and nothing of onnxq.

`stopwatch` is the same code that times models on this machine; `runner` answers the calls of `..device`.
"""
