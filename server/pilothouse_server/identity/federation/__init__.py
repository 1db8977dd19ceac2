"""Log-ins that an issuer vouches for: OpenID Connect, and the tokens of programs."""
