"""Tests that need heavy programs of others: `make test-system`."""
