"""Everything between the wire and the nouns: method rules, validation, redaction, interceptors, status.

Apart from the nouns' `service` and `messages` modules, this is the only place that uses gRPC and the generated
stubs.
"""
