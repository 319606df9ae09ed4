"""What the portal's pages show: from the engine's answers to filled templates, in one language.

Law: everything is escaped; amounts are exact; nothing here changes anything. Stripe's ids are not
shown at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from guthaben import config
from guthaben.domain.money import format_chf, nano_usd_for_rappen, parse_usd
from guthaben.domain.practice import Balance
from guthaben.domain.topup import SUCCEEDED, TOPUP_PURCHASE
from guthaben.errors import InvalidInput
from guthaben.services.answers import TopupView
from guthaben.services.checkouts import Progress
from guthaben.services.consent_texts import Terms, card_text, consent_text
from guthaben.services.portal import MOST_CALLS, USAGE_DAYS, PortalSession, UsageLine, UsageView
from guthaben.services.topups import AutoTopupChange, AutoTopupView
from guthaben.texts import LANGUAGES, catalogue, known, show, text
from guthaben.web.deps import Services

ASSETS: Final = ("portal.css", "portal.js", "icon.svg")
PRESETS: Final = (3_000, 6_000, 15_000, 30_000)
_ROWS: Final = 8
_MOST_MODELS: Final = 6
_DONE: Final = ("auto_on", "auto_off", "auto_saved", "card", "turned_back")
_GOOD: Final = ("auto_on", "auto_off", "auto_saved", "card")
_BOUGHT: Final = ("topup_purchase", "auto_topup_purchase", "failed_auto_topup")
_MOODS: Final = {"succeeded": "good", "failed": "bad", "quarantined": "bad", "canceled": ""}
_TEMPLATES: Final = Path(__file__).parent / "templates"


class AutoForm(NamedTuple):
    """The automatic top-up as a person typed it."""

    enabled: bool
    amount: str
    trigger: str
    below: str
    cap: str

    @classmethod
    def read(cls, form: Mapping[str, str]) -> Self:
        """Take the fields of a form."""
        typed = (form.get(name, "").strip()[:20] for name in ("amount", "trigger", "below", "cap"))
        return cls(form.get("enabled") == "1", *typed)

    def change(self, known: AutoTopupView, session: PortalSession) -> AutoTopupChange:
        """Make the change that was asked for; raises `InvalidInput` for what can't be read."""
        if not self.enabled:
            return AutoTopupChange(
                False, known.amount_rappen, known.trigger_percent, known.trigger_below_nano_usd,
                known.cap_rappen, language=session.language, actor=session.actor,
                largest_rappen=known.largest_rappen,
            )  # fmt: skip
        return AutoTopupChange(
            True,
            _chf("amount", self.amount),
            _percent(self.trigger) if self.trigger else known.trigger_percent,
            _usd("below", self.below) if self.below else known.trigger_below_nano_usd,
            _chf("cap", self.cap),
            language=session.language,
            actor=session.actor,
            largest_rappen=known.largest_rappen,
        )

    @staticmethod
    def fields(change: AutoTopupChange) -> dict[str, Any]:
        """Give the fields of a change, to make another one of."""
        return asdict(change)


class Shown(NamedTuple):
    """What a page shows beside the practice's own figures."""

    done: str = ""
    error: tuple[str, str] | None = None
    amount: str = ""
    save_card: bool = False
    auto: AutoForm | None = None
    asks_consent: AutoTopupChange | None = None
    """The change that the customer is asked to agree to."""
    form_token: str = ""
    before_event_no: int | None = None


def default_language() -> str:
    """Tell the language for a visitor of whom nothing is known."""
    return config.default_language()


def page(services: Services, session: PortalSession, shown: Shown) -> str:
    """Fill the practice's page."""
    practice_id, language = session.practice_id, session.language
    balance = services.guthaben.balance(practice_id)
    zone = services.portal.time_zone(practice_id)
    auto = services.payments.topups.settings(practice_id) if services.has_payments else None
    events = services.guthaben.topups(
        practice_id, limit=_ROWS + 1, before_event_no=shown.before_event_no
    )
    return _template("portal.html").render(
        **_common(language, root=""),
        practice_id=practice_id,
        shown=shown,
        done=_done(shown.done, language),
        return_url=session.return_url,
        test_mode=services.is_test_mode,
        balance=_balance(balance, zone, language),
        status=services.portal.status(practice_id),
        buying=_buying(services, shown, language),
        auto=auto and _auto(auto, balance, shown, language),
        usage=_usage(services.portal.usage(practice_id), language),
        events=[_event(event, zone, language) for event in events[:_ROWS]],
        older=events[_ROWS - 1].event_no if len(events) > _ROWS else None,
        newest=shown.before_event_no is None,
        zone=zone,
    )


def purchase_page(language: str, found: Progress, *, turned_back: bool, form_token: str) -> str:
    """Fill the page of one purchase. Only its own practice's session may give it up."""
    turned_back = turned_back and found.state == "open"
    return _template("purchase.html").render(
        **_common(language, root="../"),
        state="turned_back" if turned_back else found.state,
        mood={"credited": "good", "review": "bad", "failed": "bad"}.get(found.state, "wait"),
        price=show.chf(found.price_rappen),
        credit=show.usd_exact(found.credit_nano_usd),
        topup_id=found.topup_id,
        waits=found.state in {"open", "processing", "paid"},
        over=found.state in {"closed", "failed"} or turned_back,
        form_token=form_token if found.state == "open" else "",
    )


def message(language: str, title: str, body: str, *, root: str) -> str:
    """Fill a page that says one thing."""
    return _template("message.html").render(
        **_common(language, root=root), title=text(title, language), body=text(body, language)
    )


# ---------------------------------------------------------------- parts


def _common(language: str, *, root: str) -> dict[str, Any]:
    names = catalogue(language)

    def translate(name: str, **values: object) -> str:
        return names[name].format_map(values) if values else names[name]

    languages = [(code, text("language.name", code)) for code in LANGUAGES]
    return {"t": translate, "language": language, "languages": languages, "root": root}


def _done(name: str, language: str) -> tuple[str, str] | None:
    if name not in _DONE:
        return None
    return ("good" if name in _GOOD else ""), text(f"done.{name}", language)


def _balance(found: Balance, zone: str, language: str) -> dict[str, Any]:
    period = found.period
    parts = [found.allowance_nano_usd, found.credit_nano_usd, found.held_nano_usd]
    whole = max(sum(parts), period.allowance_nano_usd, 1)
    return {
        "available": show.usd(found.available_nano_usd),
        "allowance": show.usd_exact(found.allowance_nano_usd),
        "credit": show.usd_exact(found.credit_nano_usd),
        "held": show.usd_exact(found.held_nano_usd),
        "debt": show.usd_exact(found.debt_nano_usd) if found.debt_nano_usd else "",
        "bars": _bars(parts, whole),
        "included": show.usd(period.allowance_nano_usd) if period.license else "",
        "end": show.day(period.end_s - 1, zone, language),
    }


def _bars(parts: list[int], whole: int) -> list[tuple[str, int, int]]:
    """Place the parts on a line of 1,000 steps: name, start, width."""
    placed, at = [], 0
    for name, part in zip(("allowance", "credit", "held"), parts, strict=True):
        width = part * 1_000 // whole
        placed.append((name, at, width))
        at += width
    return placed


def _buying(services: Services, shown: Shown, language: str) -> dict[str, Any] | None:
    if not services.sells:
        return None
    least, most = config.topup_limits_rappen()
    presets = [rappen for rappen in PRESETS if least <= rappen <= most]
    typed = shown.amount or (format_chf(presets[0]) if presets else format_chf(least))
    rappen = show.typed_chf(typed)
    return {
        "least": show.chf(least),
        "most": show.chf(most),
        "presets": [(format_chf(r), show.chf(r).removesuffix(".00")) for r in presets],
        "amount": typed,
        "gives": show.usd_exact(nano_usd_for_rappen(rappen)) if rappen else "–",
        "twint": "twint" in config.checkout_methods(),
        "card_text": card_text(language),
    }


def _auto(view: AutoTopupView, balance: Balance, shown: Shown, language: str) -> dict[str, Any]:
    state = "on" if view.enabled else "paused" if view.paused_reason else "off"
    by_percent = balance.period.allowance_nano_usd > 0
    typed = shown.auto
    fields = {
        "amount": typed.amount if typed else format_chf(view.amount_rappen),
        "trigger": typed.trigger if typed else str(view.trigger_percent),
        "below": typed.below if typed else show.usd(view.trigger_below_nano_usd or 1_000_000_000),
        "cap": typed.cap if typed else format_chf(view.cap_rappen),
    }
    reason = f"pause.{view.paused_reason}"
    return {
        "state": state,
        "card_saved": view.card_saved,
        "spent": show.chf(view.spent_this_month_rappen),
        "cap_now": show.chf(view.cap_rappen),
        "paused": text(reason if known(reason) else "pause.other", language),
        "by_percent": by_percent,
        **fields,
        "consent": _consent(shown.asks_consent) if shown.asks_consent else "",
    }


def _consent(change: AutoTopupChange) -> str:
    """Write what the customer is to agree to: the very numbers that will be stored."""
    terms = Terms(
        change.amount_rappen,
        change.cap_rappen,
        change.trigger_percent,
        change.trigger_below_nano_usd,
        change.largest_rappen,
    )
    return consent_text(change.language, terms)


def _usage(view: UsageView, language: str) -> dict[str, Any]:
    most = max((line.cost_nano_usd for line in view.days), default=0) or 1
    models = view.models[:_MOST_MODELS]
    return {
        "days": [_usage_line(line, most, language) for line in view.days],
        "models": [_usage_line(line, view.cost_nano_usd or 1, language) for line in models],
        "total": show.usd_used(view.cost_nano_usd),
        "calls": f"{view.calls:,}".replace(",", "'"),
        "span": USAGE_DAYS,
        "cut": f"{MOST_CALLS:,}".replace(",", "'") if view.cut else "",
    }


def _usage_line(line: UsageLine, most: int, language: str) -> dict[str, Any]:
    year_first = line.name.split("-")
    is_day = len(year_first) == 3 and line.name.replace("-", "").isdigit() and len(line.name) == 10
    return {
        "name": ".".join(reversed(year_first)) if is_day
        else line.name or text("portal.usage_other", language),
        "calls": f"{line.calls:,}".replace(",", "'"),
        "cost": show.usd_used(line.cost_nano_usd),
        "width": max(4, line.cost_nano_usd * 1_000 // most),
    }  # fmt: skip


def _event(view: TopupView, zone: str, language: str) -> dict[str, Any]:
    kind, status = f"kind.{view.event_type}", f"status.{view.status}"
    if view.status == SUCCEEDED and view.event_type not in _BOUGHT:
        status = "status.booked"
    came = view.status == SUCCEEDED
    return {
        "when": show.minute(view.at_s, zone),
        "what": text(kind, language) if known(kind) else view.event_type,
        "price": "" if view.price_rappen is None else show.chf(view.price_rappen),
        "credit": show.usd_exact(view.amount_nano_usd) if came else "–",
        "status": text(status, language) if known(status) else view.status,
        "mood": _MOODS.get(view.status, "wait"),
        "topup_id": view.topup_id if view.event_type == TOPUP_PURCHASE and not came else "",
    }  # fmt: skip


def _chf(field: str, typed: str) -> int:
    found = show.typed_chf(typed)
    if found is None:
        raise InvalidInput(f"{field} must be an amount in CHF", field=field)
    return found


def _usd(field: str, typed: str) -> int:
    try:
        return parse_usd(typed.replace(",", ".").replace("'", ""))
    except ValueError as error:
        raise InvalidInput(f"{field} must be an amount in USD", field=field) from error


def _percent(typed: str) -> int:
    digits = typed.removesuffix("%").strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3):
        raise InvalidInput("the percentage must be 1 to 100", field="trigger")
    return int(digits)


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def _template(name: str) -> Template:
    return _environment().get_template(name)
