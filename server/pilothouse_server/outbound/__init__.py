"""Connections from this server to addresses that somebody named: which are allowed, and how much is read from them."""
