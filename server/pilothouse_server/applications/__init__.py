"""Applications: objects that change together, and go back together."""
