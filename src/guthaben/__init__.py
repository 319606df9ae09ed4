"""Guthaben: prepaid AI credit. Gate every AI call before it is made, meter it exactly after it.

`Guthaben.open(url)` opens a database; `AsyncGuthaben` is the same for asyncio. Errors are in
`guthaben.errors`, amounts in `guthaben.money`. Nothing else here is public.
"""

from guthaben import errors
from guthaben.domain import money
from guthaben.domain.period import Period
from guthaben.domain.practice import Balance
from guthaben.errors import (
    CallFinished,
    GuthabenError,
    IdempotencyConflict,
    InsufficientCredit,
    Refused,
    StoreUnavailable,
)
from guthaben.services.answers import CallView, Entry, GrantReceipt, Statement, TopupView
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.guthaben import Guthaben
from guthaben.services.handles import AsyncCallHandle, CallHandle
from guthaben.store.verify import Verification

__version__ = "0.1.0"

__all__ = [
    "Guthaben",
    "AsyncGuthaben",
    "CallHandle",
    "AsyncCallHandle",
    "Balance",
    "CallView",
    "Entry",
    "GrantReceipt",
    "Period",
    "Statement",
    "TopupView",
    "Verification",
    "errors",
    "money",
    "GuthabenError",
    "Refused",
    "InsufficientCredit",
    "IdempotencyConflict",
    "CallFinished",
    "StoreUnavailable",
]
