"""Django's PostgreSQL backend, with the differences that this schema needs, and the embedded server."""
