"""The promises: each has a checker that looks from outside, and a positive control that breaks the product and
sees the checker fail."""
