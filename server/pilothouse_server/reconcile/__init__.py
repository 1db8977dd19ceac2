"""Between the database and the clusters: the desired state is applied there, and the observed state is written back.

    reconciler   one server's part: its workers, and a candidate for observing each cluster
    apply        desired -> cluster: a reconciler for each type of resource
    observe      cluster -> status: observers of one cluster under one lease
    queue        work, leases, and clients that stop writing when a lease has run out
    repository   all SQL of this

`apply` and `observe` meet only in the database and on the cluster, so any of them may be killed at any point.
"""
