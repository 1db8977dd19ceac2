"""The guard: one rule for the content of objects that are sent to a cluster, and the permission that each part needs.

    model       findings, and the keys that a setting names
    checks      values of single fields: which of them reach beyond the pod
    pods        the allow-list of a pod's fields
    objects     the allow-lists of objects, by exact version and kind
    inspection  `violations`: the walk over a complete object

Kinds that the platform carries without a model of their own:

    carried_kinds  their allow-lists
    annotation_keys, hosts, references, roles, budgets  the checks of their values
    carrying    `admitted_rights`: the rights of a document, or the error for a part that the caller may not send

The guard reads the object as it will be sent, so it sees a field from any source: a typed field, an annotation, JSON of
the caller. A field that no list names needs the permission of its kind, so that a new Kubernetes opens nothing by
itself. The guard knows no noun: values in, violations out. Its callers decide: admission and imports ask for the
caller's permissions, ADOPT takes no finding over, and the reconciler writes only rights that somebody was allowed.
"""
