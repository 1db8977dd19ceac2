"""The rules of clusters: registration and change, and their end."""
