"""The demo: server, payment sandbox and a practice with a licence, on this machine alone.

Law: it never meets real money: its settings replace whatever the environment says, the SDK points
at the sandbox, and both listen on 127.0.0.1. All data lies in one folder, so that a second start
goes on where the first one ended. Whatever ends it ends the sandbox too.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from guthaben import config
from guthaben.domain.period import month_bounds
from guthaben.errors import ConfigError
from guthaben.web import logs, server
from guthaben.web.app import create_app, open_services
from guthaben.web.demo_outbox import PATH as OUTBOX_PATH
from guthaben.web.demo_outbox import add_demo_outbox
from guthaben.web.demo_page import add_demo_page
from guthaben.web.deps import Services

HOST: Final = "127.0.0.1"
PRACTICE: Final = "prac_demo"
LICENSE: Final = "demo_monthly"
ALLOWANCE_NANO_USD: Final = 2_000_000_000
_SANDBOX_OFFSET: Final = 421
_AI_OFFSET: Final = 422
_AI_KEY: Final = "GUTHABEN_DEMO_AI_KEY"
_AI_MODELS: Final = {
    "gpt-4o-mini": {"input_mtok": "0.15", "output_mtok": "0.6", "cache_read_mtok": "0.075"},
    "text-embedding-3-small": {"input_mtok": "0.02"},
    "whisper-1": {"input_audio_hours": "0.36"},
    "tts-1": {"input_mchars": "15"},
    "gpt-image-1": {"input_mtok": "5", "input_image_mtok": "10", "output_image_mtok": "40"},
}
"""What the sandbox's AI provider offers, and what it costs in the demo."""
_SANDBOX_START_S: Final = 10
_SANDBOX_END_S: Final = 3


class Place(NamedTuple):
    """Where everything of one demo is."""

    folder: Path
    address: str
    sandbox_port: int
    webhook_secret: str
    ai_port: int

    @property
    def ai_address(self) -> str:
        """Where the sandbox's AI provider answers."""
        return f"http://{HOST}:{self.ai_port}"

    @property
    def sandbox_address(self) -> str:
        """Where the payment sandbox answers."""
        return f"http://{HOST}:{self.sandbox_port}"


def run(port: int, folder: Path) -> None:
    """Run the demo until a signal ends it; raises `ConfigError` for what stands in its way."""
    with server.ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
        listener = server.take_address(HOST, port)
        with listener, _only_one(folder):
            secret, sandbox_port = _webhook_secret(folder), _free_port(port)
            ai_port = _free_port(port, _AI_OFFSET)
            place = Place(folder, f"http://{HOST}:{port}", sandbox_port, secret, ai_port)
            with _sandbox(place), _ai_provider(place):
                _serve(place, listener)


def _serve(place: Place, listener: socket.socket) -> None:
    config.impose(_settings(place))
    logs.configure("WARNING")
    services = open_services()
    try:
        key = prepare(services, place.folder)
        set_prices(services)
        app = create_app(services)
        add_demo_page(app, services, PRACTICE, place.address)
        add_demo_outbox(app, services, PRACTICE, place.address)
        _wait_for(place.sandbox_port, "/_control/clock", "payment sandbox")
        _wait_for(place.ai_port, "/v1/models", "sandbox's AI provider")
        if not server.run(app, listener, lambda: _tell(place, key)):
            raise ConfigError("The server did not start; its log above says why.")
    finally:
        services.stop()


def _settings(place: Place) -> dict[str, str]:
    """Say everything that decides about money, so that nothing else can."""
    return {
        "GUTHABEN_DATABASE_URL": f"sqlite:///{place.folder.resolve() / 'demo.db'}",
        "GUTHABEN_PUBLIC_URL": place.address,
        "GUTHABEN_STRIPE_API_BASE": place.sandbox_address,
        "STRIPE_SECRET_KEY": "sk_test_sandbox",
        "STRIPE_WEBHOOK_SECRET": place.webhook_secret,
        "STRIPE_SUCCESS_URL": f"{place.address}/",
        "STRIPE_CANCEL_URL": f"{place.address}/",
        "AZA_AI_AUTO_TOPUP_ENABLED": "1",
        "AZA_AI_TOPUP_ALLOW_LIVE": "1",
        "AZA_AI_TOPUP_DRY_RUN": "0",
        "GUTHABEN_SMTP_HOST": "",
        "GUTHABEN_WEBHOOKS_ALLOW_PRIVATE": "1",
        "AZA_API_TOKEN": "",
        "GUTHABEN_UPSTREAMS": json.dumps({"sandbox": _upstream(place)}),
        _AI_KEY: "sandbox",
        "GUTHABEN_TRUST_PRACTICE_HEADER": "0",
    }


def _upstream(place: Place) -> dict[str, Any]:
    models = list(_AI_MODELS)
    return {"url": f"{place.ai_address}/v1", "key_env": _AI_KEY, "models": models,
            "service_tier": True}  # fmt: skip


def set_prices(services: Services) -> None:
    """Give the sandbox's models prices, where there are none."""
    prices = services.core.prices
    known = {found.model for found in prices.book().every()} if prices.versions(1) else set()
    for model, rates in _AI_MODELS.items():
        if model not in known:
            prices.set_rates(model, rates, provider="openai", author="demo")


def prepare(services: Services, folder: Path) -> str:
    """Give the demo practice its licence and its API key, once; return the key."""
    guthaben = services.guthaben
    if guthaben.balance(PRACTICE).period.license != LICENSE:
        start_s, end_s = month_bounds(config.time_zone(), guthaben.core.now_ms() // 1000)
        guthaben.set_policy(PRACTICE, mode="test")
        guthaben.set_license(
            PRACTICE,
            LICENSE,
            period_start_s=start_s,
            period_end_s=end_s,
            allowance_nano_usd=ALLOWANCE_NANO_USD,
        )
    kept = folder / "api-key.txt"
    key = kept.read_text().strip() if kept.exists() else ""
    if key and services.keys.check(key) is not None:
        return key
    made = services.keys.create(PRACTICE, ("gate", "credit"), name="demo", mode="test")
    _keep(kept, made.key)
    return made.key


# ---------------------------------------------------------------- the folder


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder for this demo; the operating system lets it go when we end, however."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock: IO[Any] = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"Can't use the folder {folder}: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"Another demo runs on the data in {folder}: end it, or give --data another folder."
            ) from error
        yield


def _webhook_secret(folder: Path) -> str:
    kept = folder / "webhook-secret.txt"
    if not kept.exists():
        _keep(kept, f"whsec_{secrets.token_hex(16)}")
    return kept.read_text().strip()


def _keep(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


# ---------------------------------------------------------------- the sandbox


def _free_port(port: int, offset: int = _SANDBOX_OFFSET) -> int:
    for wanted in (port + offset, 0):
        with contextlib.suppress(OSError, OverflowError), socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((HOST, wanted))
            return int(trial.getsockname()[1])
    raise ConfigError("There is no free port for the sandbox.")


@contextlib.contextmanager
def _sandbox(place: Place) -> Iterator[None]:
    command = [
        *(sys.executable, "-m", "guthaben.sandbox", "--port", str(place.sandbox_port)),
        *("--state", str(place.folder / "sandbox.db"), "--public-url", place.sandbox_address),
        *("--webhook-url", f"{place.address}/stripe/webhook"),
        *("--webhook-secret", place.webhook_secret),
    ]
    with _program(command):
        yield


@contextlib.contextmanager
def _ai_provider(place: Place) -> Iterator[None]:
    command = [sys.executable, "-m", "guthaben.sandbox.ai_main", "--port", str(place.ai_port)]
    with _program(command):
        yield


@contextlib.contextmanager
def _program(command: list[str]) -> Iterator[None]:
    # In a session of its own: Ctrl-C reaches us alone, and we end it when the server has ended.
    process = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - there are no other threads yet
    )
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _end(process)


def _die_with_parent() -> None:
    """Ask Linux to end the sandbox if the demo is killed; elsewhere it would stay behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_SANDBOX_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(port: int, path: str, what: str) -> None:
    end_s = time.monotonic() + _SANDBOX_START_S
    while time.monotonic() < end_s:
        connection = http.client.HTTPConnection(HOST, port, timeout=1)
        try:
            connection.request("GET", path)
            if json.loads(connection.getresponse().read()):
                return
        except (OSError, http.client.HTTPException, ValueError):
            pass  # not yet
        finally:
            connection.close()
        time.sleep(0.02)
    raise ConfigError(f"The {what} did not start; its own words are above.")


# ---------------------------------------------------------------- words


def _tell(place: Place, key: str) -> None:
    print(
        _WORDS.format(
            address=place.address,
            outbox=place.address + OUTBOX_PATH,
            sandbox=place.sandbox_address,
            ai=place.ai_address,
            key=key,
            practice=PRACTICE,
            folder=place.folder,
        ),
        flush=True,
    )


_WORDS: Final = """
  Guthaben demo        {address}
  Payment sandbox      {sandbox}  (a stand-in for Stripe: no real money)
  AI sandbox           {ai}  (a stand-in for OpenAI: it understands nothing)
  Practice             {practice}
  API key              {key}
  E-mails, not sent    {outbox}
  Data                 {folder}

  Open the address in a browser: buy credit, make calls, set up automatic top-up. Or:

    KEY={key}
    curl -s {address}/v1/balance -H "Authorization: Bearer $KEY"
    curl -s {address}/v1/reservations -H "Authorization: Bearer $KEY" \\
      -H "Content-Type: application/json" -d '{{"amount_usd": "0.05", "key": "my-first-call"}}'

  OpenAI's own Python client (pip install openai), paid from the practice's credit:

    from openai import OpenAI
    client = OpenAI(base_url="{address}/openai/v1", api_key="{key}")
    print(client.responses.create(model="gpt-4o-mini", input="Hello!").output_text)

  The balance moves with each answer; without credit the client gets 402 and where to buy more.

  The same data from Python, while the demo runs:

    from guthaben import Guthaben
    with Guthaben.open("sqlite:///{folder}/demo.db") as credit:
        print(credit.balance("{practice}"))

  Ctrl-C ends it. The next start goes on with the same data.
"""
