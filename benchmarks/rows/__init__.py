"""The rows of the table, by name. Each is an async function that takes the environment and yields its figures."""
