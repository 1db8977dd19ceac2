"""Takes over existing objects of a cluster: whole objects by an import, single fields by adopted drift.

    deployments, pods, sources    convert the cluster's objects to the platform's values; pure functions
    operations, dependencies      import Deployments with the objects that they mount and read
    services                      imports Services that no container owns
    drift_adoption                turns others' changes of a container's Deployment into the desired state

This package creates rows of the nouns, so it is above them; it is below the reconciler.
"""
