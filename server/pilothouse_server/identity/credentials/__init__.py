"""Proofs of a user's identity: passwords, second factors, sessions and API keys."""
