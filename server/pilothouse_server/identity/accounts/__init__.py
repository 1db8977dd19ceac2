"""Users, service accounts, their secrets, and the administrator that the first start creates."""
