"""Retention: rows that are too old are archived, where that is wanted, and removed, in batches that keep nobody waiting."""
