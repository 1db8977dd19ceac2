"""All access to the database: engines, transactions, listing, the change feed."""
