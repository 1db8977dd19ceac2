"""Roles, grants and permissions, the rules of authorization, and explanations of them."""
