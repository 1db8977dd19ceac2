"""Everything between the wire and the nouns: method rules, validation, redaction, interceptors, status.

With the nouns' `service` and `messages` modules this is the only place that knows gRPC and the generated
stubs.
"""
