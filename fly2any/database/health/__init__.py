"""The health of a database in use, by topic: each has its figures, its findings and its own deadline."""
