"""A person's rights: export and erasure of all data about them (GDPR, articles 15, 17 and 20)."""

from .certificate_file import File, Stream, write_new
from .erase import Certificate, Keeper, erase
from .export import export
from .people import Person, find, find_by_id
from .plan import Plan, plan

__all__ = [
    "Certificate",
    "File",
    "Keeper",
    "Person",
    "Plan",
    "Stream",
    "erase",
    "export",
    "find",
    "find_by_id",
    "plan",
    "write_new",
]
