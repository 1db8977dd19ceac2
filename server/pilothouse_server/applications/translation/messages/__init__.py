"""Converts between values of the translator, messages and nouns; brings containers into a canonical form."""
