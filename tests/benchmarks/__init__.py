"""Tests of the measurements themselves: each row works, and its calculations are right."""
