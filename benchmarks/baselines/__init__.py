"""Baselines: the same work with the bare libraries. Nothing of the product is used but its message classes."""
