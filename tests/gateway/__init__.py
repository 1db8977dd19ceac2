"""Tests of the HTTP port: calls and streams on a real server, the rules for browsers, hostile connections."""
