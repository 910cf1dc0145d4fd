"""Adoption: taking over a database that Prisma made, in place, while the site runs."""

from .run import adopt
from .state import Assessment, Kind, assess

__all__ = ["Assessment", "Kind", "adopt", "assess"]
