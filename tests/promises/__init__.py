"""The promises.

Each has a checker that observes the product from outside, and a positive control that breaks the product and
asserts that the checker fails.
"""
