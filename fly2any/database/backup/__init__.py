"""Backups: a dump and its manifest; verified only once it was restored and compared."""
