"""Checkpoints: composed from parts, assembled, loaded, merged with adapters, and made to carry their own code."""

# What a setting `model` says for the parts of the default checkpoint, put together anew.
FRESH_DEFAULT = "default"
