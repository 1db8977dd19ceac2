"""Takes over existing objects of a cluster: whole ones by an import, single fields by adopted drift.

    deployments, pods, sources    from the cluster's objects to our values; pure functions
    operations, dependencies      the import of Deployments with the objects that they mount and read
    services                      the import of Services that stand by themselves
    drift_adoption                others' changes of a container's Deployment that become the desired state

It is above the nouns, and makes their rows, and below the reconciler.
"""
