"""Writes the clusters' state to the database: observers under a lease, and their caches in memory."""
