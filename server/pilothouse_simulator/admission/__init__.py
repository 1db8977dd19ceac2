"""The rules of each kind that a write must pass: defaults, validation, quotas, Pod Security."""
