"""From the credential of a call to its caller."""
