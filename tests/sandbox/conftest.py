"""An empty sandbox, a receiver of its events, and the SDK pointed at it."""

from collections.abc import Iterator

import pytest
import stripe

from guthaben.sandbox.model import Model
from tests.sandbox.harness import KEY, Account, Receiver, Running, running


@pytest.fixture(name="receiver")
def _receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(name="sdk")
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe, "api_key", KEY)
    monkeypatch.setattr(stripe, "max_network_retries", 0)
    client = stripe.RequestsClient(timeout=30)
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


@pytest.fixture(name="model")
def _model(sdk: None) -> Iterator[Model]:
    """A model whose clock stands still but for /clock."""
    model = Model(lambda: 1_800_000_000_000, seed=7)
    with model.installed():
        yield model
    model.close()


@pytest.fixture(name="account", params=["http", "in process"])
def _account(request: pytest.FixtureRequest) -> Account:
    """The same account at Stripe, over HTTP and in process."""
    name = "sandbox" if request.param == "http" else "model"
    return Account(request.getfixturevalue(name))
