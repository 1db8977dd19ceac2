"""`pilothouse apply`: Kubernetes manifests into the platform.

The way of a file: `documents` reads it with the place of every part, `sent_documents` sends it as JSON and finds the
line of each problem of the server, and `run` shows the trial, applies, and waits (`rollout`). The server translates and
compares; a part that cannot be represented is a problem with file, line and path, and nothing is dropped silently.
"""
