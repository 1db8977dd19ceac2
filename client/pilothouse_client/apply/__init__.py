"""`pilothouse apply`: brings Kubernetes manifests into the platform.

`documents` reads a file with the position of every part. `sent_documents` sends it as JSON and finds the line of each
problem that the server reports. `run` shows the trial, applies, and waits (`rollout`). The server translates and
compares. A part that cannot be represented is a problem with file, line and path; nothing is dropped silently.
"""
