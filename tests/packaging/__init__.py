"""The installed package: the contents of the wheel, and its use in an environment of its own."""
