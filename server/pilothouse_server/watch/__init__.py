"""Events in memory, and resume tokens.

This package imports neither SQL nor gRPC.
"""
