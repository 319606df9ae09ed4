"""The gateway and a sandbox provider behind it, both over real sockets, in one process."""

import asyncio
import atexit
import shutil
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn

from guthaben import Guthaben
from guthaben.sandbox.ai_app import Provider, create_ai_app
from guthaben.services.ai_quotes import NO_ATTACHMENTS
from guthaben.services.upstreams import Upstream, Upstreams
from guthaben.web.app import create_app
from guthaben.web.deps import Services
from guthaben.web.gateway.settings import GatewaySettings

PRACTICE = "prac_1"
MODEL = "gpt-4o-mini"
PROVIDER_KEY = "provider-key-canary-4711"
TOPUP = "https://credit.example.com/buy"
MODELS = {
    "gpt-4o-mini": {"input_mtok": "0.15", "output_mtok": "0.6", "cache_read_mtok": "0.075"},
    "text-embedding-3-small": {"input_mtok": "0.02"},
    "whisper-1": {"input_audio_hours": "0.36"},
    "gpt-4o-transcribe": {"input_mtok": "2.5", "input_audio_mtok": "6", "output_mtok": "10"},
    "tts-1": {"input_mchars": "15"},
    "gpt-4o-mini-tts": {"input_mtok": "0.6", "output_audio_mtok": "12"},
    "gpt-image-1": {"input_mtok": "5", "input_image_mtok": "10", "output_image_mtok": "40"},
    "dall-e-3": {"output_images": "0.04"},
}


KINDS = (
    "429", "500", "503", "504", "400", "401", "content-filter", "drop", "hang", "slow",
    "slow-stream", "broken-stream", "error-in-stream", "lie-negative", "lie-missing", "lie-huge",
    "lie-text", "lie-zero", "lie-more",
)  # fmt: skip


@cache
def priced() -> Path:
    """Make a database with prices once; each test gets a copy."""
    path = Path(tempfile.mkdtemp(prefix="guthaben-priced-")) / "priced.db"
    with Guthaben.open(f"sqlite:///{path}") as credit:
        prices = credit.core.prices
        for model, rates in MODELS.items():
            prices.set_rates(model, rates, provider="sandbox")
        chat = {name: MODELS[MODEL][name] for name in ("input_mtok", "output_mtok")}
        for kind in KINDS:
            prices.set_rates(f"sandbox-{kind}", chat, provider="sandbox")
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


def copy_priced(target: Path) -> None:
    """Copy the database with prices."""
    with closing(sqlite3.connect(priced())) as con:
        con.execute("VACUUM INTO ?", (str(target),))


def opened_with_prices(path: Path) -> Guthaben:
    """Open a database that has prices."""
    copy_priced(path)
    return Guthaben.open(f"sqlite:///{path}")


def flush(credit: Guthaben) -> None:
    """Wait for commands that were sent and not awaited: they are done in their order."""
    credit.core.store.run(lambda _space: None)


class Running:
    """One ASGI app on a port of its own, on a thread of its own."""

    def __init__(self, app: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        settings = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self.server = uvicorn.Server(settings)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        while not self.server.started:
            assert self._thread.is_alive()
            threading.Event().wait(0.005)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve(sockets=[self.socket])

    def close(self) -> None:
        self.server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.socket.close()


@dataclass
class Served:
    """A gateway with prices, a practice and its clients."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    payments: dict[str, Any] = field(default_factory=dict)
    """How the services open a payment provider; empty: there is none."""

    def __post_init__(self) -> None:
        self.provider = Provider()
        self.upstream = Running(create_ai_app(self.provider))
        self.database = self.folder / "gateway.db"
        copy_priced(self.database)
        self.services = Services.open(f"sqlite:///{self.database}", **self.payments)
        self.credit = self.services.guthaben
        self.gateway = Running(create_app(self.services, self._settings()))
        self.http = httpx.Client(base_url=f"{self.gateway.url}/openai/v1", trust_env=False)
        self.http.headers["Authorization"] = f"Bearer {self.key()}"

    def _settings(self) -> GatewaySettings:
        own = self.settings.pop("upstream", {})
        azure = own.get("kind") == "azure"
        options = {
            "url": self.upstream.url if azure else f"{self.upstream.url}/v1",
            "key": PROVIDER_KEY, "models": {"*": "*"}, "service_tier": True, **own,
        }  # fmt: skip
        upstreams = Upstreams([Upstream(name="sandbox", **options)])
        return GatewaySettings(upstreams, topup_url=TOPUP, **{"drain_s": 2, **self.settings})

    def key(self, practice_id: str | None = PRACTICE, *scopes: str) -> str:
        made = self.services.keys.create(practice_id, scopes or ("gate",), mode="test")
        return made.key

    def give(self, amount_nano_usd: int = 1_000_000_000, practice_id: str = PRACTICE) -> None:
        """Give credit."""
        self.credit.grant(practice_id, amount_nano_usd, key=f"given-{amount_nano_usd}")

    def client(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        """Return OpenAI's own client, on the gateway."""
        options = {"max_retries": 0, **options}
        return openai.OpenAI(
            base_url=f"{self.gateway.url}/openai/v1", api_key=key or self.key(), **options
        )

    def async_client(self, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's own client for asyncio."""
        options = {"max_retries": 0, **options}
        return openai.AsyncOpenAI(
            base_url=f"{self.gateway.url}/openai/v1", api_key=key or self.key(), **options
        )

    def bound(self, endpoint: str, body: dict[str, Any], attached: Any = NO_ATTACHMENTS) -> int:
        """Compute what the gateway holds for a request."""
        from guthaben.services.ai_quotes import quote
        from guthaben.services.request_bounds import DEFAULT_OUTPUT_TOKENS

        book = self.credit.core.prices.book()
        found = quote(book, endpoint, body, self.now_s(), attached=attached)  # type: ignore[arg-type]
        return found.fit(10**15, DEFAULT_OUTPUT_TOKENS).amount_nano_usd

    def now_s(self) -> int:
        return self.credit.core.now_ms() // 1000

    def balance(self, practice_id: str = PRACTICE) -> Any:
        return self.credit.balance(practice_id)

    def last(self, practice_id: str = PRACTICE) -> Any:
        """Return the newest call."""
        return self.credit.calls(practice_id, limit=1)[0]

    def statuses(self, practice_id: str = PRACTICE) -> list[str]:
        return [call.status for call in self.credit.calls(practice_id, limit=500)]

    def settled(self, seconds: float = 5, practice_id: str = PRACTICE) -> Any:
        """Wait until no call is open; return the newest one."""
        end = threading.Event()
        for _ in range(int(seconds / 0.01)):
            if self.balance(practice_id).held_nano_usd == 0:
                return self.last(practice_id)
            end.wait(0.01)
        raise AssertionError(f"still open: {self.statuses(practice_id)}")

    def close(self) -> None:
        self.http.close()
        self.gateway.close()
        self.upstream.close()
        self.services.stop()


async def crowd(count: int, one: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """Do something many times at once; give answers and exceptions alike."""
    return await asyncio.gather(*(one(number) for number in range(count)), return_exceptions=True)
