"""Tests of the HTTP port: calls, streams, browsers and hostile connections."""
