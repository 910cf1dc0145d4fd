"""The live catalogue as plain values."""

from .objects import Catalog, Check, Column, ForeignKey, Index, Key, Object, Table, key_of, quote, where
from .read import TRUSTED_ROLES_SQL, TRUSTED_SQL, read_catalog, relative

__all__ = [
    "TRUSTED_ROLES_SQL",
    "TRUSTED_SQL",
    "Catalog",
    "Check",
    "Column",
    "ForeignKey",
    "Index",
    "Key",
    "Object",
    "Table",
    "key_of",
    "quote",
    "read_catalog",
    "relative",
    "where",
]
