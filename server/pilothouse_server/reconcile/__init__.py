"""Between the database and the clusters: what is wanted is brought there, what is seen is written back.

`worker` takes work rows and acts on a cluster, `observer` watches a cluster and writes what it shows, `usage` collects
what containers use. They meet only in the database and on the cluster, so any of them may be killed at any point.
"""
