"""The measurements themselves: each row works, and its yardstick is right."""
