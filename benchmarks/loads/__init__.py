"""Processes that generate the load: the same ones, with the same code, for the product and for its baseline."""
