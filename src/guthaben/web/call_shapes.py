"""What the requests around calls may hold: reserve, settle, extend, release, usage, lists."""

from __future__ import annotations

from typing import Final

from guthaben.services.checks import MAX_KEY, MAX_TEXT
from guthaben.web.shapes import Field, Shape, choice, digits, integer, needed, tags, text, usd

_DAY_S: Final = 86_400
_KEY = text("Idempotency key, if it is not in the header Idempotency-Key.", MAX_KEY, least=1)

_USAGE: Final[dict[str, Field]] = {
    "model": text("The model that was asked.", MAX_TEXT),
    "operation_type": text("What it was for, such as `chat` or `dictation`.", MAX_TEXT),
    "input_tokens": integer("Tokens sent."),
    "output_tokens": integer("Tokens received."),
    "total_tokens": integer("All tokens, where that is not the sum."),
    "audio_ms": integer("Audio, in milliseconds."),
    "price_version": text("The version of the price list that gave the cost.", MAX_TEXT),
}
_ORIGIN: Final[dict[str, Field]] = {
    "user_id": text("Your opaque id of the user, never a name or an address.", MAX_TEXT),
    "device_id": text("Your opaque id of the device.", MAX_TEXT),
    "reference": text("Your own request id.", MAX_TEXT),
    "tags": tags("At most ten short texts to group calls by."),
}

RESERVE: Final = Shape(
    "Reserve",
    {
        "amount_usd": needed(usd("The most the call may cost.", 1)),
        "key": _KEY,
        "ttl_s": integer("When the hold ends by itself; default 900.", 1, _DAY_S),
        "on_expiry": choice("What the end of time does with the hold.", "release", "charge"),
        "on_exception": choice(
            "What a release with cause `exception` does.", "release", "charge", "keep"
        ),
        "model": _USAGE["model"],
        "operation_type": _USAGE["operation_type"],
        **_ORIGIN,
    },
    {
        "amount_usd": "0.0015",
        "key": "request-42",
        "ttl_s": 120,
        "on_expiry": "release",
        "on_exception": "release",
        "model": "gpt-4o-mini",
        "operation_type": "chat",
        "user_id": "u-19",
        "device_id": "d-3",
        "reference": "req-7f3a",
        "tags": {"team": "reception"},
    },
)
SETTLE: Final = Shape(
    "Settle",
    {"cost_usd": needed(usd("What the call really cost.", 0)), **_USAGE},
    {
        "cost_usd": "0.000912",
        "model": "gpt-4o-mini",
        "input_tokens": 912,
        "output_tokens": 377,
        "price_version": "2026-11",
    },
)
EXTEND: Final = Shape(
    "Extend",
    {"ttl_s": needed(integer("Time from now; at most 24 h in all.", 1, _DAY_S))},
    {"ttl_s": 600},
)
RELEASE: Final = Shape(
    "Release",
    {
        "cause": choice(
            "`exception` does what `on_exception` said when reserving.", "caller", "exception"
        )
    },
    {"cause": "caller"},
)
USAGE: Final = Shape(
    "Usage",
    {"cost_usd": needed(usd("What the call cost.", 0)), "key": _KEY, **_USAGE, **_ORIGIN},
    {
        "cost_usd": "0.0042",
        "key": "usage-2026-11-21-0815",
        "model": "whisper-1",
        "operation_type": "dictation",
        "audio_ms": 42_000,
        "device_id": "d-3",
        "reference": "rec-55",
    },
)

_LIMIT = digits("How many; default 50.", 1, 500)
CALLS: Final = Shape(
    "Page of calls",
    {"limit": _LIMIT, "before": text("The `next_before` of the page before.", 60, least=1)},
    {"limit": "20"},
)
NUMBERED: Final = Shape(
    "Page",
    {"limit": _LIMIT, "before": digits("The `next_before` of the page before.", 1, 10**18)},
    {"limit": "20"},
)
NO_QUERY: Final = Shape("No query", {}, {})
