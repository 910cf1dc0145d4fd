"""The permissions on a table, including one to export it. models.py declares those for the Database page and for a person's data."""

PERMISSIONS = ("add", "change", "delete", "view", "export")
