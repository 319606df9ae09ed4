"""A server that is killed between the COMMIT of a reservation and its answer.

Run as a script with PORT; everything else comes from the environment.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from guthaben.domain.commands import Outcome
from guthaben.store import writer
from guthaben.web import logs, server
from guthaben.web.app import create_app, open_services


def main(port: int) -> None:
    """Serve until the first reservation is durable."""
    logs.configure("WARNING")
    whole: Callable[..., Any] = writer.Writer._transaction

    def dying(self: writer.Writer, work: Any) -> Any:
        answer = whole(self, work)
        outcomes = answer[0] if isinstance(answer, tuple) else []
        if any(isinstance(one, Outcome) and one.call is not None for one in outcomes):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    writer.Writer._transaction = dying  # type: ignore[method-assign]
    services = open_services()
    server.run(create_app(services), server.take_address("127.0.0.1", port), lambda: None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
