"""The REST API over HTTP: routes, watches, users, and the faults that a test requests."""
