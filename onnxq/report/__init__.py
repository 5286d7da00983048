"""One result object for each command, and its three faces: terminal, JSON, a self-contained page.

The records live in `onnxq.report.measures` and `onnxq.report.results`; `onnxq.report.encode.to_json` writes any of
them, `onnxq.report.terminal.show` prints them and `onnxq.report.page.html` draws the report of `optimize`.
"""
