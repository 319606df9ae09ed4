"""Logs: one JSON object per line on standard error, by an allow-list of fields.

Law: a line holds a fixed event text and the fields named in `ALLOWED`, nothing else; no body, no
header, no query. What still looks like a secret or an address is hidden, in tracebacks too. Hosts
that mount the routers keep their own logging; this is for the server.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from guthaben.web.redaction import redact

ALLOWED: Final = (
    "request_id",
    "method",
    "route",
    "status",
    "duration_ms",
    "key_id",
    "practice_id",
    "code",
    "job",
    "event_type",
    "address",
    "version",
)
_OURS: Final = frozenset({"request_id", "method", "route", "level", "logger", "timestamp"})
"""Made or checked by ourselves, so that there is nothing in them to hide."""


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs of the process through the allow-list; others' logs from WARNING on."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=ALLOWED),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _hide_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("guthaben").setLevel(level)
    logging.captureWarnings(True)


def _hide_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name in _OURS or isinstance(value, int | float | bool | None):
            continue
        event[name] = redact(value if isinstance(value, str) else str(value))
    return event
