"""Migrations on a database in use: locks, retries, the journal, reversals and the state of each migration."""
