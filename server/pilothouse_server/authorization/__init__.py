"""Who holds which permission, and why a call is refused: pure rules, without database or gRPC."""
