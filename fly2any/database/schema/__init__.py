"""The schema: the live catalogue as plain values (catalog.py), the contract that it must match, and the differences with their cures."""

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
