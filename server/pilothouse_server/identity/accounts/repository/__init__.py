"""All SQL of accounts."""
