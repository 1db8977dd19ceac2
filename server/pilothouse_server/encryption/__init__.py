"""Encryption of stored values: envelopes, the keys that seal them, and keys in a PKCS#11 token."""
