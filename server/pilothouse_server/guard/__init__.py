"""Checks objects for a cluster, and returns the permission that each part needs.

    model       findings, and the keys that a setting names
    checks      values of single fields: which of them have effects outside the pod
    pods        the allow-list of a pod's fields
    objects     the allow-lists of objects, by exact version and kind
    inspection  `violations`: the walk over a complete object

Kinds that the platform carries without a model of their own:

    carried_kinds  their allow-lists
    annotation_keys, hosts, references, roles, budgets  the checks of their values
    carrying    `admitted_rights`: the rights of a document, or the error for a part that the caller may not send

The guard reads the object as it will be sent, so it covers fields from every source: typed fields, annotations, and
JSON from the caller. A field that no list names needs the permission of its kind, so that a new version of Kubernetes
allows nothing by itself. The guard depends on no noun: it takes values and returns violations. Its callers decide what
follows: admission and imports check the caller's permissions, ADOPT takes over no part with a finding, and the
reconciler writes only rights that a caller was allowed to give.
"""
