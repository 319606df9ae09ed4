"""The gateway's variables: what `GUTHABEN_UPSTREAMS` and `GUTHABEN_GATEWAY_*` may say.

Law: read at call time through `config`; what makes no sense is refused. A provider's
key stands in a variable of its own and is named, never written down.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from guthaben import config
from guthaben.errors import ConfigError

_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{2,60}")


def upstreams_json() -> str:
    """Which AI providers the gateway knows: GUTHABEN_UPSTREAMS, JSON or the path of a file."""
    text = config.variable("GUTHABEN_UPSTREAMS")
    if not text or text.startswith("{"):
        return text
    try:
        return Path(text).read_text("utf-8")
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigError(f"GUTHABEN_UPSTREAMS: can't read {text[:200]!r}.") from error


def upstream_key(name: str) -> str:
    """The key of a provider, from the variable of this name; raises ConfigError without one."""
    if not _NAME.fullmatch(name):
        raise ConfigError("A provider's key_env is the NAME of an environment variable, no key.")
    found = config.variable(name)
    if not found:
        raise ConfigError(f"{name} is not set: it must hold the provider's key.")
    return found


def charges_losses() -> bool:
    """Whether a call whose outcome nobody knows is charged as reserved; default yes."""
    return config.variable("GUTHABEN_GATEWAY_ON_LOSS").lower() != "release"


def topup_url() -> str | None:
    """Where a customer without credit is sent to buy some; default the server's own address."""
    return config.web_address("GUTHABEN_TOPUP_URL") or config.public_url()
