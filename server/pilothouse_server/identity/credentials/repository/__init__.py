"""All SQL of credentials."""
