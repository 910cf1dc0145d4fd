"""Spreading a database over several machines with Citus."""
