"""Runs ONNX models in this process."""
