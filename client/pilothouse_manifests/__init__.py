"""How containers are called in Kubernetes: one table of fields, and the one translator that reads it both ways.

    table      each of our fields with its key in Kubernetes: a new field needs nothing else in this package
    fields     the kinds of entries in the table: a field, a group of keys, a choice of one
    reading    from an object, live or written by people, to plain values by our names
    writing    from values (any objects with attributes of our names) to the object
    sources    the input: `Source`, and `ObjectSource` for whole objects as JSON
    paths      from a path of server-side apply to its value
    volumes, services    the parts of the two that are more than a row of a table
    translator manifests that people write, with the place of each problem

It imports nothing but the standard library. The client reads manifests with it, the server writes its applies,
imports existing objects, and adopts changes by others.
"""
