"""The HTTP port of the server, for browsers and for programs without gRPC.

Each call runs in the gRPC pipeline.
"""
