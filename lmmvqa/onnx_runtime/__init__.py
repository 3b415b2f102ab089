"""Scores videos by ONNX graphs. Nothing here imports torch, torchvision or transformers."""
