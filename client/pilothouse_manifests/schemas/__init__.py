"""Kubernetes' own schemas: the names, types and required fields of its objects, for each version.

    definitions   compact definitions, and the checks that use them
    openapi       converts an OpenAPI or JSON Schema document to definitions
    tables        the definitions of Kubernetes 1.30 to 1.37, which `make kubernetes-schemas` writes

A schema can refuse a field, but never allow one: the server's guard decides which fields may be sent. Patterns, formats
and CEL are left to the cluster's dry run. `kubernetes.json.gz` is made from the package `kubernetes-validate` and has
its licence (`LICENSE`).
"""
