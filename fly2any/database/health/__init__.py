"""The health of a database in use: a topic each, with its figures, its findings and its own deadline."""
