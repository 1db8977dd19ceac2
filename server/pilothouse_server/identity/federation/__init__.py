"""Log-ins that an issuer vouches for: OpenID Connect, and tokens of programs."""
