"""Who may be served now: calls in classes, each with so many seats, given fairly to those who ask.

    limiter    one class: seats, a bound for each who asks, a fair queue (after Kubernetes' API Priority and Fairness,
               KEP-1040; with an exact queue for each who waits, as those are bounded, where it shuffles them into few)
    arrivals   calls that come together: taken in first, then worked on a few at a time
    bodies     requests whose body has not arrived: they hold no seat, and end soon
    paces      refusals, streams that begin, calls to a cluster: so many a second for each who asks
    unsent     answers that their readers have not taken yet
    seats      the classes of a server, and the seats of one call

A call takes its way through them in the pipeline. Where many of its caller's come with it, it is held until it is its
turn. Where its token was not seen a moment ago it holds a seat by its address while it is found out who calls. Then its
body is read, and then it takes a seat by its user: of the streams, or of the unary calls; where its method needs no
log-in, by its address. What waits for a cluster gives that seat back and takes one of that cluster's. All seats are
given back when the call ends, however it ends.

Nothing here knows gRPC. All of it belongs to one process: with several, each has its own seats.
"""
