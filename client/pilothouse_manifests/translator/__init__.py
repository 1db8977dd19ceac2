"""Converts manifests that people write to values of the platform: the translator of `apply`, in client and server.

`nodes` is a document's tree with the position of every part. `convert` turns Deployments, Services, ServiceAccounts,
ConfigMaps, Secrets and claims into `manifest`. `attach` joins services and accounts with the containers they belong to.
A field that cannot be represented is a `problems.InputProblem` with file, line and path; nothing is dropped silently.

Values are those of the table (`pilothouse_manifests.table`): plain dicts by the platform's names, with Kubernetes'
words for enumerations. No module here imports protobuf; the client converts values to messages.
"""
