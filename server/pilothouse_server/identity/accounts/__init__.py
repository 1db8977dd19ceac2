"""Users, service accounts, their secrets, and the accounts that the first start makes."""
