"""Proofs of who a user is: passwords, second factors, sessions and API keys."""
