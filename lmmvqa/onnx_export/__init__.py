"""A checkpoint as ONNX graphs, for `lmmvqa.onnx_runtime`."""
