"""Backups: a dump, and a manifest that says of what; good only once it was restored and compared."""
