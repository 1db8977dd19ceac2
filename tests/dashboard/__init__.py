"""Tests of calls that cover several nouns."""
