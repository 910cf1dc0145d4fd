"""The permissions on a table; exporting it is one of its own."""

PERMISSIONS = ("add", "change", "delete", "view", "export")
