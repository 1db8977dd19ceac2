"""The work queue and who may work: leases, clients under a lease, pauses between attempts."""
