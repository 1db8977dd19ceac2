"""Applications: objects that are applied and rolled back together."""
