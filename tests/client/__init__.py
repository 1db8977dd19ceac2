"""Tests of the client against a real gRPC server whose failures the tests control."""
