"""TLS: the server's certificate, the accepted client certificates, and their files.

Changed files are read again.
"""
