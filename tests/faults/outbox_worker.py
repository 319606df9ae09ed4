"""The child of the outbox's fault test: it works the outbox, and is killed in the middle of it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from guthaben.channels import webhook
from guthaben.channels.results import Result
from guthaben.services.delivery import Dispatcher
from guthaben.services.jobs import Job, Runner
from guthaben.store.store import Store


def send_and_die(*args: Any, **options: Any) -> Result:
    """Send, and end before it can be noted that it was sent."""
    webhook.post(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def main() -> None:
    """Work the outbox of a database as a server does."""
    store = Store(sys.argv[1])
    dispatcher = Dispatcher(store, allow_private=lambda: True, post=send_and_die)
    Runner(store, [Job("outbox", 1, dispatcher.work)]).work_once()
    print("nothing to send")


if __name__ == "__main__":
    main()
