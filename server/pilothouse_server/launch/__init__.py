"""How a server is started: several processes on one port, development with embedded programs, a simulated cluster."""
