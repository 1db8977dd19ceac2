"""Tests that need heavy programs of other projects: `make test-system`."""
