"""Processes that put the load on: the same ones, with the same code, for the product and for its baseline."""
