"""Retention: archive expired rows if configured, and delete them in batches that do not block other sessions.

rules.py decides which rows are too old, and which are archived.
"""
