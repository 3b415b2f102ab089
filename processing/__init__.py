"""A video and a question to tensors; answers to score and level.

Nothing is imported here, so that prompts can be had without the weight of the video processor.
"""
