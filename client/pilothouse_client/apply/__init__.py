"""`pilothouse apply`: Kubernetes manifests into the platform.

The way of a file: `documents` reads it with the place of every part, `pilothouse_manifests.translator` turns it into
values, `plan` compares them, as messages, with the server's resources, and `execute` sends the difference. A field
that cannot be represented is a problem with file, line and path; nothing is dropped silently.
"""
