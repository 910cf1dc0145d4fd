"""What the project is tested with besides its own suite: Django's, and other versions of Python, Django and PostgreSQL."""
