"""Applies the desired state to clusters, and writes the observed state back.

    reconciler   one server's part: its workers, and a candidate for observing each cluster
    apply        desired -> cluster: a reconciler for each type of resource
    observe      cluster -> status: observers of one cluster under one lease
    queue        work, leases, and clients that stop writing when their lease has expired
    repository   all SQL of the packages above

`apply` and `observe` share only the database and the cluster, so either may be killed at any point.
"""
