"""Exports scorers for other runtimes: ONNX, Triton and AOTInductor. Each export is compared with the scorer row by row."""
