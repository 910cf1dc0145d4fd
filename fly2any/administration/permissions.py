"""What may be permitted on a table; exporting it is a permission of its own."""

PERMISSIONS = ("add", "change", "delete", "view", "export")
