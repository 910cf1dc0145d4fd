"""Tests beyond the project's own suite: Django's suite, and other versions of Python, Django and PostgreSQL."""
