"""Maintenance: what is done every week, month and quarter."""
