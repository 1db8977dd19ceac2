"""Several server processes on one port: a supervisor, and the programs that it starts.

    supervisor     reserves the port (`rpc.port`), starts the children, restarts those that end, drains all
      child        one child as the supervisor sees it: its process, and the socket between the two
      metrics      the metrics of all, served as those of one server
    program        the program of a child: an Application, and the other end of the socket
    link           the messages between the two
    failures       the texts for a failed start

A child is a fresh process, never a fork: gRPC's threads and locks do not survive a fork. Each child is a server of its
own, as a replica is, and the leases in the database share the work. The supervisor loads neither gRPC nor the nouns.
"""

from typing import Final

# The time after the grace period in which a server closes its connections and writes its last records.
CLOSING_SECONDS: Final = 10.0
