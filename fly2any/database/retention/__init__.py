"""Retention: archive expired rows if configured, and delete them in batches that do not block other sessions."""
