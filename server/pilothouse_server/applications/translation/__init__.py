"""Converts values of the translator of manifests into values of each noun."""
