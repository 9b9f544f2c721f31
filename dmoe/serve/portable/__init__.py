"""Scorers for other runtimes: ONNX, a Triton model repository, AOTInductor; each compared with the scorer row by row."""
