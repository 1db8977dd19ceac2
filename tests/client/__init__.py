"""Tests of the client against a real gRPC server whose failures are set by the tests."""
