"""Tests of the embedded programs."""
