"""The command line: parses, calls `onnxq.api`, renders. It holds no logic, and no heavy import at its top."""

from onnxq.cli.program import main

__all__ = ["main"]
