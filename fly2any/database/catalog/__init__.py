"""The live catalogue as plain values."""

from .objects import Catalog, Check, Column, ForeignKey, Index, Key, Object, Table, key_of, quote, where
from .read import TRUSTED_SQL, read_catalog, relative

__all__ = [
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
