"""Runs for other programs: Hugging Face hub folders and ONNX."""
