"""One result object for each command, and its three faces: terminal, JSON, a self-contained page.

The records live in `onnxq.report.results`, their rows in `.rows` and `.measures`.
`onnxq.report.encode.to_json` writes any of them, `.terminal.show` prints them, and `.page.html` draws the
report of `optimize`.
"""
