"""Checkpoints: composed from parts, assembled, loaded, merged with adapters, and made to carry their own code."""
