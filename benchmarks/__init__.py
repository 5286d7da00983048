"""Real models, real data and the tools that onnxq is measured against."""
