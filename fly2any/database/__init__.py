"""The database itself: its schema, changes, health and backups, and the commands. It never imports an app of the domain."""
