"""`pilothouse apply`: Kubernetes manifests into the platform.

The way of a file: `documents` reads it with the place of every part, `convert` turns Deployments, Services
and ServiceAccounts into `manifest`, `attach` joins services and accounts with the containers they belong to,
`plan` compares with what the server has, `execute` brings the difference there. Whatever cannot be
represented is a `problems.InputProblem` with file, line and path; nothing is dropped silently.
"""
