"""Flow control: which calls this process serves now, and which wait or are refused.

    classes            one table: each class of seats with its flow, seats, weight and wait; and the rates
    fair_queue         the seats of one class, given by start-time fair queuing (KEP-1040, with one queue for each flow)
    token_bucket       so many a second for each key: refusals, stream opens, cluster calls, watch lines, failures
    reservation        the seats of one call, as a state machine
    admission          the queues and rates of one process
    arrivals           calls that come in bursts: all are taken in first, then served a few at a time
    pending_requests   calls whose request has not arrived: they hold no seat, and end soon
    pending_responses  answers that their readers have not taken yet

A call first passes `arrivals`. While the server looks up its token, it holds a seat of its address. Then its request is
read, and the call acquires a seat of its user (or of its address, if the method needs no log-in). A unary call that
waits for a cluster releases that seat and acquires one of the cluster. When the call ends, it releases everything.

The other users of `fair_queue` are password hashing, first states of watches, replays of a `request_id`, and log-ins.

This package imports neither gRPC nor a noun. Its limits belong to one process: with several, each has its own.
"""
