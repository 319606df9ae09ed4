"""An empty sandbox, a receiver of its events, and the SDK pointed at it."""

from collections.abc import Iterator

import pytest
import stripe

from tests.sandbox.harness import KEY, Receiver, Running, running


@pytest.fixture(name="receiver")
def _receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(name="sdk")
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "api_key", KEY)
    monkeypatch.setattr(stripe, "max_network_retries", 0)
    client = stripe.RequestsClient(timeout=5)
    monkeypatch.setattr(stripe, "default_http_client", client)


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    receiver = Receiver()
    with running(tmp_path_factory.mktemp("sandbox") / "sandbox.db", receiver) as sandbox:
        yield sandbox
    receiver.close()


@pytest.fixture(name="sandbox")
def _sandbox(server: Running, sdk: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(stripe, "api_base", server.url)
    yield server
    server.forget()
