"""Where records of the audit log are sent: files, HTTP receivers, syslog and OTLP collectors.

A sink is a row with a durable cursor, the sequence of the last record that the sink has acknowledged. `runner` sends
what is after it, in the order of the log, and moves the cursor only then: so every record arrives at least once, and
whoever asks for it once tells repetitions by its sequence.
"""
