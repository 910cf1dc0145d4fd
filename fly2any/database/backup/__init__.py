"""Backups: a dump and its manifest; verified only after it was restored and compared (trial_restore.py)."""
