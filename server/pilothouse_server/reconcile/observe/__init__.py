"""What the clusters show, written to the database: observers under a lease, and what they keep in memory."""
