"""Several server processes on one port: a supervisor, and the programs that it starts.

    supervisor     holds the port (`rpc.port`), starts the children, starts again one that ends, drains all
      child        one child as the supervisor sees it: its process, and the socket between the two
      metrics      the figures of all, served as those of one server
    program        the program of a child: an Application, and the other end of the socket
    link           the messages between the two
    failures       the texts for a failed start

A child is a fresh process, never a fork: gRPC's threads and locks do not survive one. Each is a server of its own, as a
replica is, and the leases in the database share the work. The supervisor loads neither gRPC nor the nouns.
"""

from typing import Final

# After the grace of calls: a server closes its connections, and writes what it has to record.
CLOSING_SECONDS: Final = 10.0
