"""The commands about money that came in, with a provider that answers in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guthaben.cli.app import app
from guthaben.services.guthaben import Guthaben
from guthaben.services.purchases import PaymentNotice, credit_payment, quarantine
from guthaben.services.webhooks import Inbox
from tests.services.fakes import Elsewhere, FakeGateway
from tests.services.house import CHF_30, TEN_USD, metadata_of, page_of, sign

SECRET = "whsec_cli"
DONE, REFUSED, UNAVAILABLE, SETTINGS, MENDED = 0, 1, 3, 4, 5
Run = Callable[..., Any]


def told(notice: PaymentNotice, is_right: bool, space: Any) -> None:
    """Credit a payment, or hold it back."""
    if is_right:
        credit_payment(space, notice)
    else:
        quarantine(space, notice, "amount_mismatch")


@pytest.fixture
def provider() -> FakeGateway:
    return FakeGateway(Elsewhere(), livemode=False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: FakeGateway) -> Run:
    """Run a command in a folder of its own, with a credited and a held-back payment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_cli")
    monkeypatch.setattr("guthaben.web.app.StripeGateway", lambda *_a, **_o: provider)
    with Guthaben.open("sqlite:///guthaben.db") as guthaben:
        created = guthaben.core.now_ms() // 1000 - 3_600
        for number in (1, 2):
            metadata = metadata_of(f"tu_{number}")
            provider.put(f"pi_{number}", metadata=metadata, created_at_s=created)
            notice = PaymentNotice(
                "prac_1", "topup_purchase", TEN_USD, CHF_30, payment_id=f"pi_{number}",
                session_id=f"cs_{number}", topup_id="tu_1" if number == 1 else "",
            )  # fmt: skip
            guthaben.core.store.run(partial(told, notice, number == 1))

    def command(*arguments: str, code: int = DONE) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        is_json = arguments[-1] in ("--json", "-")
        return json.loads(result.stdout) if is_json and code == DONE else result

    return command


def credit_usd(run: Run) -> str:
    """Tell the bought credit."""
    return str(run("balance", "prac_1", "--json")["credit_usd"])


def test_a_case_is_listed_shown_and_credited(run: Run) -> None:
    (case,) = run("quarantine", "list", "--json")["cases"]
    assert (case["case_no"], case["payment"]) == (1, "pi_…")
    assert "amount_mismatch" in run("quarantine", "list").stdout
    assert run("quarantine", "show", "1", "--json")["payment"] == "pi_2"
    resolve = ("quarantine", "resolve", "1", "--credit", "prac_1", "--reason", "seen", "--json")
    assert [run(*resolve)["changed"] for _ in range(2)] == [True, False]
    assert credit_usd(run) == "20.00"
    run("quarantine", "resolve", "1", "--dismiss", "--reason", "seen", code=REFUSED)


@pytest.mark.parametrize("how", [(), ("--refund", "--dismiss"), ("--dismiss", "--amount", "5")])
def test_a_decision_is_one_of_three(run: Run, how: tuple[str, ...]) -> None:
    run("quarantine", "resolve", "1", *how, "--reason", "seen", code=REFUSED)
    assert run("quarantine", "list", "--json")["cases"] != []


def test_a_case_is_given_back(run: Run, provider: FakeGateway) -> None:
    told = run("quarantine", "resolve", "1", "--refund", "--reason", "asked for").stdout
    assert "30.00 CHF, succeeded" in told
    assert run("quarantine", "show", "1", "--json")["status"] == "refunded"
    assert provider.payments["pi_2"].refunded_rappen == CHF_30


def test_a_refund_tells_first_and_then_gives_back(run: Run) -> None:
    assert run("refund", "tu_1", "--json")["unspent_chf"] == "30.00"
    assert "refundable_chf" in run("refund", "tu_1").stdout
    wish = ("refund", "tu_1", "--amount", "6", "--reason", "by mistake", "--key", "k", "--json")
    assert [run(*wish)["replayed"] for _ in range(2)] == [False, True]
    assert credit_usd(run) == "8.00"
    told = run("refund", "tu_1", "--amount", "24.01", "--reason", "more", code=REFUSED)
    assert "24.00 CHF are left" in told.stderr
    run("refund", "tu_1", "--amount", "x", "--reason", "more", code=REFUSED)
    run("refund", "tu_9", code=REFUSED)


def test_reconcile_tells_mends_and_ends_with_its_code(
    run: Run, provider: FakeGateway, tmp_path: Path
) -> None:
    provider.put("pi_1", refunded_rappen=600)
    run("quarantine", "resolve", "1", "--dismiss", "--reason", "seen")
    dry = run("reconcile", "--since", "2026-01-01", "--json", "report.json", code=REFUSED)
    assert "refund_not_booked" in dry.stdout
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert (report["remaining"], report["fixed"], credit_usd(run)) == (1, False, "10.00")
    assert "mended" in run("reconcile", "--since", "2026-01-01", "--fix", code=MENDED).stdout
    assert credit_usd(run) == "8.00"
    assert run("reconcile", "--since", "2026-01-01", "--json", "-")["clean"] is True
    run("reconcile", "--since", "yesterday", code=REFUSED)


def test_a_provider_that_can_not_be_asked_has_its_own_code(run: Run, provider: FakeGateway) -> None:
    from guthaben.errors import PaymentUnavailable

    provider.down = PaymentUnavailable("down")
    told = run("reconcile", "--since", "2026-01-01", code=UNAVAILABLE)
    assert (told.exit_code, told.stdout) == (UNAVAILABLE, "")
    assert "down" in told.stderr


def test_without_a_key_nothing_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_SECRET_KEY")
    for command in ("refund tu_1", "reconcile --since 2026-01-01"):
        assert "STRIPE_SECRET_KEY" in run(*command.split(), code=SETTINGS).stderr
    assert run("quarantine", "list", "--json")["cases"] != []


def test_events_are_listed_shown_retried_and_discarded(run: Run, provider: FakeGateway) -> None:
    with Guthaben.open("sqlite:///guthaben.db") as guthaben:
        inbox = Inbox(guthaben, provider, secrets=lambda: (SECRET,), livemode_expected=False)
        event = {
            "id": "evt_1", "object": "event", "type": "checkout.session.completed", "created": 1,
            "livemode": False, "data": {"object": page_of("cs_7", "pi_7")},
        }  # fmt: skip
        body = json.dumps(event).encode()
        inbox.receive(body, sign(body, guthaben.core.now_ms() // 1000, SECRET))
    assert run("inbox", "list", "--json")["events"] == []
    (row,) = run("inbox", "list", "--waiting", "--json")["events"]
    assert (row["event_id"], row["status"]) == ("evt_1", "new")
    assert run("inbox", "show", "evt_1", "--payload", "--json")["payload"]["id"] == "evt_1"
    assert "cs_7" not in run("inbox", "show", "evt_1").stdout
    assert run("inbox", "retry", "evt_1", "--reason", "now", "--json")["status"] == "new"
    assert "ignored (discarded)" in run("inbox", "discard", "evt_1", "--reason", "old").stdout
    assert "discarded" in run("inbox", "list", "--all").stdout
    run("inbox", "retry", "evt_9", "--reason", "now", code=REFUSED)
