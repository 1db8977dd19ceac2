"""The mapping of containers to Kubernetes: one table of fields, and the one translator that reads it both ways.

    table      each platform field with its key in Kubernetes: a new field needs nothing else in this package
    fields     the kinds of entries in the table: a field, a group of keys, a choice of one
    reading    from an object, live or written by people, to plain values by the platform's names
    writing    from values (any objects with attributes of the platform's names) to the object
    sources    the input: `Source`, and `ObjectSource` for whole objects as JSON
    paths      from a path of server-side apply to its value
    volumes, services    the parts of volumes and Services that need more than rows of the table
    translator manifests that people write, with the position of each problem

It imports only the standard library. The client reads manifests with it. The server builds its applies with it, imports
existing objects, and adopts changes that others have made.
"""
