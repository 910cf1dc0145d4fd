"""The permissions on a table, including one to export it."""

PERMISSIONS = ("add", "change", "delete", "view", "export")
