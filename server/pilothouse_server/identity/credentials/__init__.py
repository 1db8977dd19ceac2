"""How users prove who they are: passwords, second factors, sessions, API keys."""
