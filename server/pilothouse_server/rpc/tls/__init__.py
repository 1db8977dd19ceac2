"""TLS: the server's certificate, the accepted clients' certificates, and their files, which are read again
when they change.
"""
