"""The installed package: the contents of the wheel, and its use in a separate environment."""
