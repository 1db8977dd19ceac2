"""Issuers of OpenID Connect that this server trusts: what their files say, their keys, and their tokens."""
