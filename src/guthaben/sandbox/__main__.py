"""Owns the command line: `python -m guthaben.sandbox --port 8421 --state sandbox.db ...`.

Listens on 127.0.0.1 only.
"""

import argparse

import uvicorn

from guthaben.sandbox.app import create_app


def arguments() -> argparse.ArgumentParser:
    """Return what the command understands."""
    parser = argparse.ArgumentParser(prog="python -m guthaben.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=8421)
    parser.add_argument("--state", default="sandbox.db", help="SQLite file of the sandbox's own")
    parser.add_argument("--webhook-url", help="where events are sent; none: events are only kept")
    parser.add_argument("--webhook-secret", default="whsec_sandbox", help="several: by commas")
    parser.add_argument("--public-url", help="base of the hosted pages as the payer sees it")
    parser.add_argument("--slow-ms", type=int, default=3000, help="how late a slow card answers")
    parser.add_argument("--retry-base-ms", type=int, default=500, help="first pause of a retry")
    parser.add_argument("--live-retries", action="store_true", help="retry over three days")
    parser.add_argument("--max-attempts", type=int, default=16, help="deliveries of one event")
    return parser


def main() -> None:
    """Run the sandbox until it is stopped."""
    given = arguments().parse_args()
    app = create_app(
        given.state,
        webhook_url=given.webhook_url,
        webhook_secret=given.webhook_secret,
        public_url=given.public_url,
        slow_ms=given.slow_ms,
        retry_base_ms=None if given.live_retries else given.retry_base_ms,
        max_attempts=given.max_attempts,
    )
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
