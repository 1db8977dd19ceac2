"""Carried objects: those of kinds that have no noun of their own."""
