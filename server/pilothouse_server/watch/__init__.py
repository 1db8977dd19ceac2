"""Events in memory, and the tokens by which a watch goes on: nothing here knows SQL or gRPC."""
