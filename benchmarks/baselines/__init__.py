"""What the same work costs with the bare libraries. Nothing of the product is in here but its message classes."""
