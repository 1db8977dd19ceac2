"""TLS: the certificate that is served, who may show one, and the files that say so, read anew when they change."""
