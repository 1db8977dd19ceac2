"""The REST API over HTTP: routes, watches, users, and injected faults."""
