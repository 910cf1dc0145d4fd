"""The live catalogue as plain values."""

from .catalog import read_catalog
from .names import relative
from .objects import Catalog, Check, Column, Domain, ForeignKey, Index, Key, Object, Table, key_of, where

__all__ = [
    "Catalog",
    "Check",
    "Column",
    "Domain",
    "ForeignKey",
    "Index",
    "Key",
    "Object",
    "Table",
    "key_of",
    "read_catalog",
    "relative",
    "where",
]
