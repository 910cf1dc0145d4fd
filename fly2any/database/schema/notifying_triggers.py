"""Triggers that send rows by NOTIFY, which refuses a payload of 8,000 bytes or more: writes of rows with long texts fail."""

from __future__ import annotations

from ..sql import EXPLICIT_TRIGGER_SQL

# Of the table `c`. A function that shortens or measures what it sends may be safe.
NOTIFYING_SQL = rf"""
    ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
          WHERE t.tgrelid = c.oid AND {EXPLICIT_TRIGGER_SQL} AND t.tgenabled NOT IN ('D', 'R')
            AND p.prosrc ~* '\mpg_notify\s*\(' AND p.prosrc ~* '\m(row_to_json|to_jsonb?|hstore)\s*\('
            AND p.prosrc !~* '\m(left|substr|substring|length|octet_length)\s*\(' ORDER BY 1)
"""
