"""A process that applies an event, or refunds a payment, and is killed at a named place."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from guthaben.services.guthaben import Guthaben
from guthaben.services.refunds import Wish
from guthaben.services.webhooks import Inbox
from guthaben.store import inbox as inbox_rows
from tests.services.fakes import Elsewhere, FakeGateway
from tests.services.house import NOON, SECRET, metadata_of


def die(*_args: object, **_options: object) -> Any:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, where: str) -> None:
    """Open the database, and work until the end comes."""
    guthaben = Guthaben.open(url, clock_ms=lambda: NOON * 1000)
    gateway = FakeGateway(Elsewhere())
    gateway.put("pi_1", metadata=metadata_of())
    inbox = Inbox(guthaben, gateway, secrets=lambda: (SECRET,), livemode_expected=True)
    if where == "read":
        gateway.retrieve_payment = die  # type: ignore[method-assign]
    elif where == "applied":
        inbox_rows.finish = die
    elif where == "closing":
        real = inbox_rows.finish

        def closing(*args: Any) -> None:
            real(*args)
            die()

        inbox_rows.finish = closing  # type: ignore[assignment]
    else:
        gateway.refund = die  # type: ignore[method-assign]
        inbox.refunds.refund("tu_1", Wish(1_500, "killed", "because"))
    inbox.work_once()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
