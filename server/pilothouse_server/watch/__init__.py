"""Events in memory, and the tokens by which a watch continues: nothing here knows SQL or gRPC."""
