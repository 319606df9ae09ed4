"""Backup and restore: what was paid after the backup is credited once, and nobody is charged twice.

A lost house: a purchase that was open when the backup was made and paid after it, one that was
begun after it, an automatic charge, a hold. Then the database is gone, and the backup takes its
place.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from guthaben.errors import InsufficientCredit, InvalidInput, Refused, StoreUnavailable
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services import backups
from guthaben.services.guthaben import Guthaben
from guthaben.services.quarantine import Decision, Quarantine
from guthaben.services.reconcile import Reconciler, Report
from guthaben.services.refunds import Refunds
from guthaben.services.settling import Settler
from guthaben.services.topup_stops import TopupStops
from guthaben.services.topups import Topups
from guthaben.services.webhooks import Inbox
from guthaben.store import cases, queries
from guthaben.store.restored import REASON
from guthaben.store.store import Store
from tests import databases, postgres
from tests.databases import Database
from tests.faults.bank import PRACTICE, USD, Bank, bank, sandbox, server
from tests.programs import guthaben as program
from tests.sandbox.harness import KEY, Running
from tests.store.bank import free, pay, problems, rows

__all__ = ["bank", "sandbox", "server"]

pytestmark = pytest.mark.faults

TEN_USD, CHF_30 = 10 * USD, 3_000
PAGES: Any = {
    "success_url": "https://app.example.com/ok",
    "cancel_url": "https://app.example.com/no",
}
OPEN: dict[str, Any] = {
    "only_open": True, "practice_id": None, "after_case_no": 0, "limit": 50
}  # fmt: skip
BOUGHT = Decision("found by reconciliation", "anna")


def run(name: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs on a database."""
    tool = postgres.tool(name, url)
    if tool is None:
        pytest.skip(f"there is no {name} here")
    command = [tool, f"--dbname={url}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


Restore = Callable[[], str]


def backed_up(database: Database, folder: Path) -> Restore:
    """Make a backup as docs/operating/backup.md says; give what restores it elsewhere."""
    if database.kind == databases.POSTGRESQL:
        dump = str(folder / "credit.dump")
        run("pg_dump", database.url, "--format=custom", f"--file={dump}")

        def restore() -> str:
            url = postgres.create(postgres.name_of_another())
            run("pg_restore", url, "--exit-on-error", dump)
            return url

        return restore
    copy = folder / "backup.db"
    done = program("backup", str(copy), "--json", "--db", database.url, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"]

    def put_back() -> str:
        shutil.copyfile(copy, folder / "restored.db")
        return f"sqlite:///{folder / 'restored.db'}"

    return put_back


def buy(credit: Guthaben, sandbox: Running) -> str:
    """Begin a purchase of 30 CHF; give its page."""
    topups = Topups(credit, StripeGateway(KEY, api_base=sandbox.url))
    started = topups.start_checkout(PRACTICE, CHF_30, **PAGES)
    pages = sandbox.objects("checkout.session")
    return next(one["id"] for one in pages if one["client_reference_id"] == started.topup_id)


class Restored:
    """The services on the restored database."""

    def __init__(self, url: str, bank: Bank) -> None:
        self.bank = bank
        bank.url = url
        self.credit, self.charger = bank.open()
        store, gateway = self.credit.core.store, StripeGateway(KEY, api_base=bank.sandbox.url)
        self.inbox = Inbox(self.credit, gateway, secrets=tuple, livemode_expected=False)
        self.reconciler = Reconciler(store, gateway, self.inbox)
        settler = Settler(store, gateway)
        self.quarantine = Quarantine(store, gateway, settler, Refunds(store, gateway, settler))
        self.stops = TopupStops(self.credit)

    def reconcile(self) -> Report:
        return self.reconciler.run(self.bank.now_ms() // 1000 - 86_400, fix=True)

    def open_cases(self) -> list[Any]:
        return self.credit.core.ask(lambda cur: cases.page(cur, **OPEN))

    def usd(self) -> int:
        return self.credit.balance(PRACTICE).credit_nano_usd // USD


def test_what_was_paid_after_the_backup_is_credited_once_and_charged_never_again(
    bank: Bank, database: Database, sandbox: Running, tmp_path: Path
) -> None:
    bank.arm(cap_rappen=CHF_30)
    open_page = buy(bank.credit, sandbox)
    bank.credit.grant(PRACTICE, 2 * USD, key="given")
    bank.credit.reserve(PRACTICE, USD, key="open when the backup was made")
    restore = backed_up(database, tmp_path)
    # After the backup: both purchases are paid, a card is charged, and all of it is spent.
    later_page = buy(bank.credit, sandbox)
    for page in (open_page, later_page):
        assert sandbox.control(f"/checkout/{page}/pay", {"card": "4242424242424242"})["paid"]
    bank.charger.start()
    with pytest.raises(InsufficientCredit):
        bank.credit.reserve(PRACTICE, 5 * USD, key="more than there is")
    bank.until_ended()
    charged = sandbox.charges()
    assert charged == 3
    bank.credit.record_usage(PRACTICE, 9 * USD, key="spent, and forgotten with the database")
    for credit, charger in bank.opened:
        charger.stop()
        credit.close()
    bank.opened.clear()

    here = Restored(restore(), bank)
    bank.credit = here.credit
    here.charger.start()
    assert here.credit.verify().ok
    (left,) = [backups.what_is_left(here.credit)]
    assert left is not None
    assert (left.armed_practices, left.open_calls, left.open_attempts) == (1, 1, 1)
    # Its consent may be withdrawn by now: so nobody is charged, however low the balance is.
    stop = here.stops.all().stop
    assert stop is not None
    assert stop.reason == REASON
    with pytest.raises(InsufficientCredit):
        here.credit.reserve(PRACTICE, 5 * USD, key="more than there is")
    here.charger.janitor.check_once()
    assert sandbox.charges() == charged
    with pytest.raises(Refused, match="reconcile --fix --since") as refused:
        here.stops.resume(None)
    assert refused.value.reason == "not_reconciled"

    bank.wait(3_600)
    here.credit.expire()
    assert here.credit.balance(PRACTICE).held_nano_usd == 0, "holds end by themselves"
    assert here.reconcile().remaining == 2
    assert here.usd() == 12, "given, and what was open"
    waiting = here.open_cases()
    assert [case.reason for case in waiting] == ["topup_unknown"] * 2
    for case in waiting:
        assert here.quarantine.credit(case.case_no, PRACTICE, BOUGHT).changed
        assert not here.quarantine.credit(case.case_no, PRACTICE, BOUGHT).changed
    assert here.usd() == 32, "each payment once"
    assert here.reconcile().remaining == 0
    assert here.usd() == 32
    assert here.stops.show(PRACTICE).spent_this_month_rappen == CHF_30, "the cap counts it"

    assert here.stops.resume(None)
    assert here.stops.all().stop is None
    assert backups.what_is_left(here.credit) is None
    here.credit.record_usage(PRACTICE, 32 * USD, key="all")
    with pytest.raises(InsufficientCredit):
        here.credit.reserve(PRACTICE, USD, key="after all")
    here.charger.janitor.check_once()
    assert sandbox.charges() == charged, "the month's cap was used up before"
    assert here.stops.show(PRACTICE).would != "charge"


def test_a_backup_is_made_while_calls_are(database: Database, tmp_path: Path) -> None:
    store = Store(database.url)
    pay(store, "p", 10**9)
    done, over = [0], threading.Event()

    def work() -> None:
        from guthaben.domain.commands import RecordUsage

        while not over.is_set():
            assert store.execute("p", RecordUsage(f"k{done[0]}", 1)).applied
            done[0] += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while done[0] < 50:
            over.wait(0.001)
        before = done[0]
        restore = backed_up(database, tmp_path)
        after = done[0]
    finally:
        over.set()
        worker.join()
    assert after > before, "nobody waited for the backup"
    copy = Store(restore())
    ((calls,),) = rows(copy, "SELECT COUNT(*) FROM credit_call")
    assert before <= calls <= after + 1
    assert free(copy, "p") == 10**9 - calls
    assert problems(copy) == []
    assert problems(store) == []
    copy.close()
    store.close()


def test_a_database_in_its_place_is_no_copy(database: Database) -> None:
    for _ in range(2):  # opened, closed and opened again
        with Guthaben.open(database.url) as credit:
            assert backups.what_is_left(credit) is None
            assert TopupStops(credit).all().stop is None


def test_somebody_can_say_that_it_is_one(database: Database) -> None:
    with Guthaben.open(database.url) as credit:
        credit.grant("p", 5, key="k")
        for _ in range(2):
            assert backups.say_restored(credit).known_until_s > 0
        stops = TopupStops(credit)
        with pytest.raises(Refused, match="comes from a backup"):
            stops.resume(None)
        assert credit.core.ask(lambda cur: queries.open_alarms(cur, 9))[0]["code"] == (
            "database_restored"
        )
        assert stops.resume(None, unreconciled=True)
        assert credit.core.ask(lambda cur: queries.open_alarms(cur, 9)) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credit.db"


def test_a_backup_replaces_nothing_and_is_one_file(path: Path, tmp_path: Path) -> None:
    with Guthaben.open(f"sqlite:///{path}") as credit:
        credit.grant("p", 5, key="k")
        target = tmp_path / "copy.db"
        made = backups.back_up(credit, target)
        assert made.verified.ok
        with closing(sqlite3.connect(target)) as con:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert sorted(one.name for one in tmp_path.glob("copy.db*")) == ["copy.db"]
        with pytest.raises(InvalidInput, match="replaces nothing"):
            backups.back_up(credit, target)
        with pytest.raises(StoreUnavailable, match="not written"):
            backups.back_up(credit, tmp_path / "no such folder" / "copy.db")
        assert not TopupStops(credit).all().stop, "the original goes on"


def test_a_backup_that_is_not_as_its_journal_says_is_told(path: Path, tmp_path: Path) -> None:
    with Guthaben.open(f"sqlite:///{path}") as credit:
        credit.grant("p", 5, key="k")
    with closing(sqlite3.connect(path)) as con, con:
        con.execute("UPDATE credit_grant SET free_nano_usd = 6")
    done = program("backup", str(tmp_path / "copy.db"), "--db", f"sqlite:///{path}", cwd=tmp_path)
    assert done.returncode == 1
    assert "Keep the backups before it." in done.stdout


def test_postgresql_names_its_own_program(tmp_path: Path) -> None:
    done = program("backup", "x.dump", "--db", postgres.fresh(), cwd=tmp_path)
    assert done.returncode == 4
    assert "pg_dump" in done.stderr
