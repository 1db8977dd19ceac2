"""The work queue and its workers: leases, clients under a lease, pauses between attempts."""
