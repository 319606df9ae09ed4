"""Owns the command line of the AI provider: `python -m guthaben.sandbox.ai_main --port 8422`.

Listens on 127.0.0.1 only.
"""

import argparse

import uvicorn

from guthaben.sandbox.ai_app import create_ai_app

_KEEP_ALIVE_S = 75


def main() -> None:
    """Run the provider until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m guthaben.sandbox.ai_main", description=__doc__)
    parser.add_argument("--port", type=int, default=8422)
    given = parser.parse_args()
    uvicorn.run(
        create_ai_app(),
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        timeout_keep_alive=_KEEP_ALIVE_S,
    )


if __name__ == "__main__":
    main()
