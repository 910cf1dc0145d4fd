"""The form of the reports that commands print as JSON."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

FORMAT = 1


def dumped(data: dict[str, Any]) -> str:
    """Return `data` as JSON, a time in ISO 8601 and how long something took in seconds."""
    return json.dumps({"format": FORMAT, **data}, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value.isoformat()
