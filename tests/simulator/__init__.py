"""Tests of the simulated cluster, most of them replays of recordings of a real API server."""
