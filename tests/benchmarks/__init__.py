"""The measurements themselves: that each row works, and that what they measure by is right."""
