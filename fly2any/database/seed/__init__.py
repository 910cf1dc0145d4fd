"""Demo data for all 18 tables: realistic, the same for the same seed, generated inside the database."""

from .run import DEMO_DOMAIN, seed

__all__ = ["DEMO_DOMAIN", "seed"]
