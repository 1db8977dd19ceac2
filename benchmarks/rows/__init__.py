"""The rows of the table, by name. Each is an async function from the world to its figures."""
