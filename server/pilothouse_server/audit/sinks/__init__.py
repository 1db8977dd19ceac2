"""The destinations of the audit log's records: files, HTTP receivers, syslog and OTLP collectors.

A sink is a row with a durable cursor, the sequence of the last record that the sink has acknowledged.
`runner` sends the records after the cursor, in the order of the log, and moves the cursor only then. So every
record arrives at least once, and a receiver recognizes repetitions by their sequence.
"""
