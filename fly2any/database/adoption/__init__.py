"""Adoption: taking over a database that Prisma made, in place, while the site runs."""

from .assessment import Assessment, Kind, assess
from .run import adopt

__all__ = ["Assessment", "Kind", "adopt", "assess"]
