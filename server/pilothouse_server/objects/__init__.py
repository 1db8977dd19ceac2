"""Carried objects: objects of kinds that have no noun of their own."""
