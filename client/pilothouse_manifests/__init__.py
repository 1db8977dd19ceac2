"""How containers are called in Kubernetes: one table of fields, and the one translator that reads it both ways.

    table      every field of ours beside its key in Kubernetes: adding a field to it is all that this package asks
    fields     what an entry of the table can be: a field, a group of keys, a choice of one
    reading    from an object, live or written by people, to plain values by our names
    writing    from values (any objects with attributes of our names) to the object
    sources    what is read: `Source`, and `ObjectSource` for whole objects as JSON
    paths      a path of server-side apply to the value that it stands for
    volumes, services    what of the two is more than a row of a table
    translator manifests that people write, with the place of each problem

It imports nothing but the standard library. The client reads manifests with it, the server writes what it applies,
imports what is there, and adopts what others changed.
"""
