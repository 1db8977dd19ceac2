"""Manifests for these tests, one for each shape of real applications, applied to the simulated cluster."""
