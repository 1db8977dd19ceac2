"""Flow control: the calls that this process serves now, queues, or refuses.

    classes            one table: each class of seats with its flow, seats, weight and wait; and the rates
    fair_queue         the seats of one class, given by start-time fair queuing (KEP-1040, with one queue for each flow)
    token_bucket       a rate for each key: refusals, stream opens, cluster calls, watch lines, failures
    reservation        the seats of one call, as a state machine
    admission          the queues and rates of one process
    arrivals           the burst gate: the calls of a burst are all accepted first, then served a few at a time
    pending_requests   calls whose request has not arrived: they hold no seat, and soon time out
    pending_responses  responses that their readers have not read yet

A call first passes the burst gate. While the server looks up the call's token, the call holds a seat of its address.
Then the server reads the request, and the call acquires a seat of its user (or of its address, if the method needs no
log-in). A unary call that waits for a cluster releases that seat and acquires one of the cluster. A call that ends
releases everything.

The other users of `fair_queue` are password hashing, first states of watches, replays of a `request_id`, and log-ins.

This package imports neither gRPC nor a noun. Its limits belong to one process: with several, each has its own.
"""
