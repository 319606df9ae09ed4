"""Commands about telling people: contacts, endpoints, outbox.

An owner is a practice (`--practice`), or without it the operator.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from guthaben import config
from guthaben.cli.output import (
    REFUSED,
    AsJson,
    Db,
    command,
    moment,
    opened,
    say,
    say_json,
    say_pairs,
    say_table,
)
from guthaben.errors import Refused

if TYPE_CHECKING:
    from guthaben.services.guthaben import Guthaben
    from guthaben.services.targets import EndpointView, Targets

Practice = Annotated[str, typer.Option(help="Whose; default the operator's.", show_default=False)]
ContactId = Annotated[str, typer.Argument(help="The contact's id: con_...")]
EndpointId = Annotated[str, typer.Argument(help="The endpoint's id: we_...")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    groups = {
        "contacts": ("E-mail addresses that notices go to.", (
            ("add", add_contact), ("list", list_contacts), ("erase", erase_contact),
            ("preferences", preferences),
        )),
        "endpoints": ("Where signed webhooks go.", (
            ("add", add_endpoint), ("list", list_endpoints), ("remove", remove_endpoint),
            ("test", try_endpoint), ("enable", enable_endpoint), ("roll", roll_secret),
        )),
        "outbox": ("What was told, and whether it arrived.", (
            ("list", list_outbox), ("show", show), ("replay", replay),
        )),
    }  # fmt: skip
    for name, (about, commands) in groups.items():
        group = typer.Typer(help=about, no_args_is_help=True)
        for verb, work in commands:
            group.command(verb)(command(work))
        app.add_typer(group, name=name)


def _targets(guthaben: Guthaben) -> Targets:
    from guthaben.services.targets import Targets

    return Targets(guthaben.core.store)


# ---------------------------------------------------------------- contacts


def add_contact(
    address: Annotated[str, typer.Argument(help="An e-mail address.")],
    language: Annotated[str, typer.Option(help="de, fr, it or en.")] = "de",
    practice: Practice = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Send notices to an e-mail address."""
    with opened(db) as guthaben:
        made = _targets(guthaben).add_contact(practice, address, language)
    if as_json:
        say_json(made._asdict())
    else:
        say(f"{made.contact_id}: {made.masked}, {made.language}")


def list_contacts(practice: Practice = "", db: Db = None, as_json: AsJson = False) -> None:
    """List e-mail addresses, masked."""
    with opened(db) as guthaben:
        found = _targets(guthaben).contacts(practice)
    if as_json:
        say_json([view._asdict() for view in found])
        return
    names = ("contact_id", "masked", "language", "unsubscribed", "created")
    rows = [
        (v.contact_id, v.masked, v.language, " ".join(v.unsubscribed), moment(v.created_at_s))
        for v in found
    ]
    say_table([(name, "left") for name in names], rows)


def erase_contact(contact: ContactId, practice: Practice = "", db: Db = None) -> None:
    """Erase an e-mail address for good."""
    with opened(db) as guthaben:
        _targets(guthaben).erase_contact(practice, contact)
    say(f"{contact} is erased.")


def preferences(
    contact: ContactId,
    unsubscribe: Annotated[
        list[str] | None,
        typer.Option(help="A kind it does not want, or '*'; may be repeated. None: all of them."),
    ] = None,
    practice: Practice = "",
    db: Db = None,
) -> None:
    """Say which hints an address does not want; what is contractual always comes."""
    with opened(db) as guthaben:
        _targets(guthaben).set_preferences(practice, contact, unsubscribe or [])
    say(f"{contact} does not get: {', '.join(unsubscribe or ['(gets everything)'])}")


# ---------------------------------------------------------------- endpoints


def add_endpoint(
    url: Annotated[str, typer.Argument(help="An https URL.")],
    kind: Annotated[
        list[str] | None, typer.Option(help="Only this kind; may be repeated. Default all.")
    ] = None,
    practice: Practice = "",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Send signed webhooks to a URL. Its secret is shown this once.

    The operator's endpoints get the notices of all practices.
    """
    with opened(db) as guthaben:
        made = _targets(guthaben).add_endpoint(practice, url, kind or [])
    shown = {**_endpoint(made.endpoint), "secret": made.secret}
    if as_json:
        say_json(shown)
    else:
        say_pairs({**shown, "kinds": " ".join(made.endpoint.kinds)})


def list_endpoints(practice: Practice = "", db: Db = None, as_json: AsJson = False) -> None:
    """List webhook endpoints."""
    with opened(db) as guthaben:
        found = _targets(guthaben).endpoints(practice)
    if as_json:
        say_json([_endpoint(view) for view in found])
        return
    names = ("endpoint_id", "url", "kinds", "state")
    say_table(
        [(name, "left") for name in names],
        [(v.endpoint_id, v.url, " ".join(v.kinds), _state(v)) for v in found],
    )


def remove_endpoint(endpoint: EndpointId, practice: Practice = "", db: Db = None) -> None:
    """Send nothing more to an endpoint."""
    with opened(db) as guthaben:
        _targets(guthaben).remove_endpoint(practice, endpoint)
    say(f"{endpoint} is removed.")


def enable_endpoint(endpoint: EndpointId, practice: Practice = "", db: Db = None) -> None:
    """Send to an endpoint again; what it missed is for `guthaben outbox replay`."""
    with opened(db) as guthaben:
        _targets(guthaben).enable_endpoint(practice, endpoint)
    say(f"{endpoint} is on.")


def roll_secret(
    endpoint: EndpointId, practice: Practice = "", db: Db = None, as_json: AsJson = False
) -> None:
    """Give an endpoint a new secret; for a day the old one signs beside it."""
    with opened(db) as guthaben:
        secret = _targets(guthaben).roll_secret(practice, endpoint)
    shown = {"endpoint_id": endpoint, "secret": secret}
    if as_json:
        say_json(shown)
    else:
        say_pairs(shown)


def try_endpoint(
    endpoint: EndpointId, practice: Practice = "", db: Db = None, as_json: AsJson = False
) -> int | None:
    """Send a webhook of the type `test` now; exit code 1 if it was not taken."""
    from guthaben.channels.results import Sent

    with opened(db) as guthaben:
        result = _targets(guthaben).test_endpoint(practice, endpoint)
    taken = isinstance(result, Sent)
    reason = "" if isinstance(result, Sent) else result.reason
    if as_json:
        say_json({"endpoint_id": endpoint, "taken": taken, "reason": reason})
    else:
        say(f"{endpoint}: {'taken' if taken else f'not taken ({reason})'}")
    return None if taken else REFUSED


def _endpoint(view: EndpointView) -> dict[str, object]:
    return {**view._asdict(), "kinds": list(view.kinds)}


def _state(view: EndpointView) -> str:
    if view.disabled_at_s:
        return f"off since {moment(view.disabled_at_s)} ({view.disabled_reason})"
    if view.failing_since_s:
        return f"failing since {moment(view.failing_since_s)}"
    return "on"


# ---------------------------------------------------------------- outbox


def list_outbox(
    practice: Annotated[
        str | None, typer.Option(help="Only of this practice.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=500)] = 50,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """List what was told, newest first, and how its deliveries stand."""
    from guthaben.services.outbox_views import told_lately

    with opened(db) as guthaben:
        found = told_lately(guthaben.core.store, practice, limit)
    if as_json:
        say_json([view._asdict() for view in found])
        return
    names = ("notice", "told (UTC)", "practice", "kind", "key", "deliveries")
    rows = [
        (v.notice_id, moment(v.told_at_s), v.practice_id, v.kind, v.key, _stands(v.deliveries))
        for v in found
    ]
    say_table([(name, "left") for name in names], rows)


def _stands(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "to nobody"


def show(
    notice: Annotated[str, typer.Argument(help="The notice's id: ntc_...")],
    language: Annotated[str, typer.Option(help="de, fr, it or en.")] = "en",
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Show a notice: its e-mail in one language, its webhook, and its deliveries."""
    from guthaben.services.delivery import Dispatcher, payload
    from guthaben.services.outbox_views import one_told

    with opened(db) as guthaben:
        store = guthaben.core.store
        found = one_told(store, notice)
        if found is None:
            raise Refused(f"There is no notice {notice}.", reason="notice_not_found")
        row, practice_id, deliveries = found
        dispatcher = Dispatcher(store, public_url=config.public_url())
        worded = dispatcher.worded(row, practice_id, language)
    body = payload(row, practice_id).decode()
    if as_json:
        say_json({
            "webhook": json.loads(body), "subject": worded.subject, "text": worded.text,
            "deliveries": [_delivery(d._asdict()) for d in deliveries],
        })  # fmt: skip
        return
    say(f"Subject: {worded.subject}\n\n{worded.text}\nWebhook: {body}\n")
    names = ("channel", "target_id", "status", "attempts", "reason")
    say_table(
        [(name, "left") for name in names],
        [[d._asdict()[name] for name in names] for d in deliveries],
    )


def _delivery(row: dict[str, object]) -> dict[str, object]:
    hidden = ("practice_no", "owner_no", "lease", "lease_until_s", "notice_id")
    return {name: value for name, value in row.items() if name not in hidden}


def replay(
    notice: Annotated[
        str | None, typer.Option(help="Only this notice.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Only to this contact or endpoint.", show_default=False)
    ] = None,
    since: Annotated[int, typer.Option(help="Only since then; seconds since 1970.")] = 0,
    delivered: Annotated[
        bool, typer.Option("--delivered", help="Also what has arrived already.")
    ] = False,
    db: Db = None,
    as_json: AsJson = False,
) -> None:
    """Send again what was given up or dropped, under the same ids."""
    from guthaben.services.outbox_views import replay_ended

    if not (notice or target or since):
        raise Refused("Say what: --notice, --target or --since.", reason="invalid_input")
    with opened(db) as guthaben:
        number = replay_ended(
            guthaben.core.store, notice_id=notice, target_id=target, since_s=since,
            delivered=delivered,
        )  # fmt: skip
    if as_json:
        say_json({"replayed": number})
    else:
        say(f"{number} {'delivery waits' if number == 1 else 'deliveries wait'} to be sent.")
