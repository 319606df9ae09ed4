"""The gateway's settings: the providers it knows and how it behaves; read once, when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from guthaben import config
from guthaben.services import gateway_config
from guthaben.services.request_bounds import DEFAULT_OUTPUT_TOKENS
from guthaben.services.upstreams import Upstreams, configured


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How the gateway behaves; `on_loss`: what a call costs whose outcome nobody knows."""

    upstreams: Upstreams
    timeout_s: int = 600
    drain_s: int = 30
    """How long a stream is read on after its caller has left, to hear its usage."""
    most_output_tokens: int = DEFAULT_OUTPUT_TOKENS
    on_loss: Literal["charge", "release"] = "charge"
    topup_url: str | None = None

    @property
    def ttl_s(self) -> int:
        """How long a reservation lives: longer than the call can."""
        return self.timeout_s + self.drain_s + 60

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment. Raises `ConfigError` that says what to mend."""
        tokens = ("GUTHABEN_GATEWAY_MAX_OUTPUT_TOKENS", DEFAULT_OUTPUT_TOKENS)
        return cls(
            upstreams=configured(),
            timeout_s=config.whole("GUTHABEN_GATEWAY_TIMEOUT_S", 600, 1, 43_200),
            drain_s=config.whole("GUTHABEN_GATEWAY_DRAIN_S", 30, 1, 3_600),
            most_output_tokens=config.whole(*tokens, 1, 1_000_000),
            on_loss="charge" if gateway_config.charges_losses() else "release",
            topup_url=gateway_config.topup_url(),
        )
