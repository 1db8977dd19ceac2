"""Tests, by the same names as the packages they test."""
