"""Commands about money that came in: quarantine, refund, reconcile.

Law: what moves money asks the provider with the key in STRIPE_SECRET_KEY; without it nothing is
done. The exit codes of `reconcile` are for cron: 0 clean, 5 all differences mended, 1 some remain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from guthaben.cli.output import (
    REFUSED,
    AsJson,
    Db,
    command,
    database,
    moment,
    opened,
    say,
    say_json,
    say_pairs,
    say_table,
    usd_of,
)
from guthaben.errors import InvalidAmount, InvalidInput

if TYPE_CHECKING:
    from guthaben.services.reconcile import Report
    from guthaben.web.deps import Services

MENDED: Final = 5
"""Exit code of `reconcile`: there were differences, and all are mended."""

CaseNo = Annotated[int, typer.Argument(help="The case's number.", min=1)]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
Author = Annotated[str, typer.Option(help="Who.")]

_CASES = [
    ("case", "right"), ("opened (UTC)", "left"), ("practice", "left"), ("reason", "left"),
    ("amount", "right"), ("payment", "left"), ("status", "left"),
]  # fmt: skip
_DIFFERENCES = [
    ("cause", "left"), ("done", "left"), ("practice", "left"), ("event", "right"),
    ("payment", "left"), ("ours", "right"), ("theirs", "right"), ("detail", "left"),
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Payments that are held back for a person.", no_args_is_help=True)
    for name, work in (("list", list_cases), ("show", show_case), ("resolve", resolve)):
        group.command(name)(command(work))
    app.add_typer(group, name="quarantine")
    app.command("refund")(command(refund))
    app.command("reconcile")(command(reconcile))


# ---------------------------------------------------------------- quarantine


def list_cases(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=500)] = 50,
    after: Annotated[int, typer.Option(help="Only cases after this number.", min=0)] = 0,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List payments that are held back, oldest first."""
    from guthaben.store import cases
    from guthaben.web import money_views

    with opened(db) as guthaben:
        found = guthaben.core.store.read(
            lambda cur: cases.page(
                cur, only_open=not everything, practice_id=None, after_case_no=after, limit=limit
            )
        )
    shown = money_views.cases(found, limit)
    if as_json:
        say_json(shown)
        return
    say_table(_CASES, [
        [row["case_no"], moment(row["opened_at_s"]), row["practice_id"], row["reason"],
         f"{row['amount'] or '?'} {row['currency'].upper()}", row["payment"], row["status"]]
        for row in shown["cases"]
    ])  # fmt: skip


def show_case(case_no: CaseNo, db: Db = None, as_json: AsJson = False) -> None:
    """Show one case, with the payment's whole id to look it up at the provider."""
    from guthaben.errors import Refused
    from guthaben.store import cases
    from guthaben.web import money_views

    with opened(db) as guthaben:
        store = guthaben.core.store
        case = store.read(lambda cur: cases.load(cur, case_no))
        notes = store.read(lambda cur: cases.notes(cur, f"case:{case_no}"))
    if case is None:
        raise Refused("There is no such case.", reason="case_not_found")
    shown: dict[str, Any] = money_views.case(case)
    shown |= {"payment": case.payment_id or None, "session": case.session_id or None}
    shown["notes"] = [money_views.note(one) for one in notes]
    if as_json:
        say_json(shown)
    else:
        say_pairs({**shown, "notes": json.dumps(shown["notes"], ensure_ascii=False)})


def resolve(
    case_no: CaseNo,
    reason: Reason,
    credit: Annotated[
        str | None,
        typer.Option(metavar="PRACTICE", help="Give its credit to.", show_default=False),
    ] = None,
    refund: Annotated[bool, typer.Option("--refund", help="Give the money back whole.")] = False,
    dismiss: Annotated[bool, typer.Option("--dismiss", help="Neither: seen to elsewhere.")] = False,
    amount: Annotated[
        str | None,
        typer.Option(help="With --credit: how much, in USD.", show_default=False),
    ] = None,
    author: Author = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Decide about a case: one of --credit, --refund, --dismiss. The same again changes nothing."""
    from guthaben.services.quarantine import Decision
    from guthaben.web import money_views

    if (credit is not None) + refund + dismiss != 1:
        raise InvalidInput("Say one of --credit PRACTICE, --refund, --dismiss.")
    if amount is not None and credit is None:
        raise InvalidInput("--amount belongs to --credit.")
    decision = Decision(reason, author)
    with _services(db) as services:
        quarantine = services.payments.quarantine
        if refund:
            given = quarantine.refund(case_no, decision)
            _say_refund(money_views.refund(given), as_json)
            return
        if credit is not None:
            usd = None if amount is None else usd_of(amount)
            resolved = quarantine.credit(case_no, credit, decision, amount_nano_usd=usd)
        else:
            resolved = quarantine.dismiss(case_no, decision)
    if as_json:
        say_json({**money_views.case(resolved.case), "changed": resolved.changed})
    else:
        before = "" if resolved.changed else " (it was before)"
        say(f"Case {case_no} is {resolved.case.status}{before}.")


# ---------------------------------------------------------------- refund


def refund(
    of: Annotated[str, typer.Argument(metavar="PAYMENT_OR_TOPUP", help="pi_... or tu_...")],
    reason: Annotated[
        str | None, typer.Option(help="Why; it is kept. Without: only tells.", show_default=False)
    ] = None,
    amount: Annotated[
        str | None, typer.Option(help="In CHF; default all that is left.", show_default=False)
    ] = None,
    allow_debt: Annotated[
        bool, typer.Option("--allow-debt", help="Spent credit may become debt.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            help="Idempotency key, kept for ever. Default a random one.", show_default=False
        ),
    ] = None,
    author: Author = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Tell how much of a payment can go back, or, with --reason, give it back.

    More than unspent credit covers is refused unless --allow-debt.
    """
    import secrets

    from guthaben.services.refunds import Wish
    from guthaben.web import money_views

    with _services(db) as services:
        refunds = services.payments.inbox.refunds
        if reason is None:
            shown = money_views.quote(refunds.quote(of))
            say_json(shown) if as_json else say_pairs(shown)
            return
        rappen = None if amount is None else _rappen(amount)
        chosen = key or f"cli-refund-{secrets.token_hex(8)}"
        wish = Wish(rappen, chosen, reason, author, allow_debt)
        _say_refund(money_views.refund(refunds.refund(of, wish)), as_json)


def _rappen(amount: str) -> int:
    from guthaben.domain.money import parse_chf

    try:
        return parse_chf(amount)
    except ValueError as error:
        raise InvalidAmount(f'{amount!r} is no amount in CHF such as "12.50".') from error


def _say_refund(shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(shown)
        return
    before = " (asked for before; nothing changed)" if shown["replayed"] else ""
    say(f"{shown['refund_id']}: {shown['amount_chf']} CHF, {shown['status']}{before}.")
    if shown["status"] == "unknown":
        say(
            "The answer was lost. The server, or guthaben work --once, finds out what became of it."
        )


# ---------------------------------------------------------------- reconcile


def reconcile(
    since: Annotated[str, typer.Option(help="From this day, such as 2026-11-01 (UTC).")],
    until: Annotated[
        str | None, typer.Option(help="Before this day; default now.", show_default=False)
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix/--dry-run", help="Mend what can be mended, or only tell.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the report as JSON; - to standard output.", show_default=False
        ),
    ] = None,
    db: Db = None,
) -> int | None:
    """Compare our books with the provider's, both ways.

    Exit code 0: nothing differs. 5: differences were found, all are mended. 1: some remain.
    """
    from guthaben.services.reconcile import Reconciler
    from guthaben.web import money_views

    since_s, until_s = _day(since), None if until is None else _day(until)
    with _services(db) as services:
        reconciler = Reconciler(
            services.core.store, services.payments.gateway, services.payments.inbox
        )
        report = reconciler.run(since_s, until_s, fix=fix)
    shown = money_views.report(report)
    if json_file is not None and str(json_file) == "-":
        say_json(shown)
    else:
        if json_file is not None:
            json_file.write_text(json.dumps(shown, indent=2, ensure_ascii=False) + "\n", "utf-8")
        _say_report(report, shown)
    if report.clean:
        return None
    return REFUSED if report.remaining else MENDED


def _say_report(report: Report, shown: dict[str, Any]) -> None:
    if shown["differences"]:
        say_table(_DIFFERENCES, [
            [row[name] for name in ("cause", "action", "practice_id", "event_no", "payment",
                                    "ours", "theirs", "detail")]
            for row in shown["differences"]
        ])  # fmt: skip
    for money in shown["balance"]:
        say(
            f"{money['currency'].upper()}: {money['gross']} came in, {money['fee']} fees, "
            f"{money['net']} net."
        )
    mode = "mended" if report.fixes else "dry run"
    say(
        f"{report.payments} payments of ours, {report.foreign} of others, {report.events} events; "
        f"{report.found} differences ({mode}), {report.remaining} remain."
    )


def _day(text: str) -> int:
    from datetime import UTC, datetime

    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no day such as 2026-11-01.", field="since") from error


@contextmanager
def _services(db: str | None) -> Iterator[Services]:
    """Open what the server has, with the provider of STRIPE_SECRET_KEY, without starting it."""
    from guthaben import config
    from guthaben.errors import ConfigError
    from guthaben.web.app import open_services

    with opened(db):  # a misspelt name must not make a new database
        pass
    if config.stripe_secret_key() is None:
        raise ConfigError("There is no Stripe key. Set STRIPE_SECRET_KEY.")
    services = open_services(database(db))
    try:
        yield services
    finally:
        services.stop()
