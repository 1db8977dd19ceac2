"""Issuers of OpenID Connect that this server trusts: their entries in the file, their keys, and their tokens."""
