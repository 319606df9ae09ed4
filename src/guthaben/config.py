"""The settings: the only reader of the environment, at call time.

Law: nothing is read or kept at import, so a changed variable counts at the next call. A switch
that lets money move is on only for `1`, `true`, `yes` or `on`; a switch that holds money back
is off only for `0`, `false`, `no` or `off`. Anything else, garbage included, means the safe
side. Amounts, prices and limits are no settings: they belong to the practice's record.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from guthaben.errors import ConfigError
from guthaben.mail_address import domain_of

_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"0", "false", "no", "off"})
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_LOG_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


@dataclass(frozen=True, slots=True)
class Settings:
    """One reading of the whole environment; secrets stay out of its repr."""

    auto_topup_enabled: bool
    topup_allow_live: bool
    topup_dry_run: bool
    stripe_secret_key: str | None = field(repr=False)
    stripe_webhook_secrets: tuple[str, ...] = field(repr=False)
    stripe_success_url: str | None
    stripe_cancel_url: str | None
    stripe_api_base: str | None
    livemode_expected: bool | None
    api_token: str | None = field(repr=False)
    admin_token: str | None = field(repr=False)
    trust_practice_header: bool
    database_url: str | None = field(repr=False)
    time_zone: str
    host: str
    port: int
    log_level: str


def settings() -> Settings:
    """Read everything now; raises ConfigError for the first setting that makes no sense."""
    return Settings(
        auto_topup_enabled=auto_topup_enabled(),
        topup_allow_live=topup_allow_live(),
        topup_dry_run=topup_dry_run(),
        stripe_secret_key=stripe_secret_key(),
        stripe_webhook_secrets=stripe_webhook_secrets(),
        stripe_success_url=stripe_success_url(),
        stripe_cancel_url=stripe_cancel_url(),
        stripe_api_base=stripe_api_base(),
        livemode_expected=livemode_expected(),
        api_token=api_token(),
        admin_token=admin_token(),
        trust_practice_header=trust_practice_header(),
        database_url=database_url(),
        time_zone=time_zone(),
        host=host(),
        port=port(),
        log_level=log_level(),
    )


def impose(values: Mapping[str, str]) -> None:
    """Set variables of this process's environment: for the demo, which must meet no real key."""
    os.environ.update(values)


# ---------------------------------------------------------------- money


def auto_topup_enabled() -> bool:
    """Whether saved cards may be charged without the customer being there; default off."""
    return _switched_on("AZA_AI_AUTO_TOPUP_ENABLED")


def topup_allow_live() -> bool:
    """Whether Stripe may be asked for money at all; default off."""
    return _switched_on("AZA_AI_TOPUP_ALLOW_LIVE")


def topup_dry_run() -> bool:
    """Whether purchases are only simulated; default on."""
    return _text("AZA_AI_TOPUP_DRY_RUN", "1").lower() not in _OFF


def monthly_budgets_usd() -> dict[str, str]:
    """What each plan includes per month: GUTHABEN_MONTHLY_BUDGETS_USD, a JSON object.

    Its names are the plans' lookup keys, its values decimal strings or whole numbers of USD; the
    name "*" stands for every other plan. Raises ConfigError for anything else.
    """
    text = _text("GUTHABEN_MONTHLY_BUDGETS_USD")
    if not text:
        return {}
    try:
        found = json.loads(text, parse_float=str, parse_constant=str)
    except ValueError as error:
        raise ConfigError("GUTHABEN_MONTHLY_BUDGETS_USD must be a JSON object.") from error
    if not isinstance(found, dict) or not all(
        isinstance(value, str | int) and not isinstance(value, bool) for value in found.values()
    ):
        raise ConfigError('GUTHABEN_MONTHLY_BUDGETS_USD must be like {"basic": "20.00"}.')
    return {name: str(value) for name, value in found.items()}


def topup_wait_s() -> int:
    """How long a call that lacks credit waits for the automatic charge under way; default 0.

    Raises ConfigError for anything but a whole number from 0 to 10: a charge has no longer.
    """
    return whole("GUTHABEN_TOPUP_WAIT_S", 0, 0, 10)


def topup_limits_rappen() -> tuple[int, int]:
    """The least and the most that a top-up by hand may cost, in Rappen; default 10 to 5,000 CHF.

    GUTHABEN_TOPUP_LEAST_CHF and GUTHABEN_TOPUP_MOST_CHF. Stripe takes 0.50 CHF at least and TWINT
    5,000 CHF at most: above that a purchase is offered without TWINT.
    """
    least = _rappen("GUTHABEN_TOPUP_LEAST_CHF", "10")
    most = _rappen("GUTHABEN_TOPUP_MOST_CHF", "5000")
    if not 50 <= least <= most <= 99_999_999:
        raise ConfigError(
            "GUTHABEN_TOPUP_LEAST_CHF and GUTHABEN_TOPUP_MOST_CHF must be 0.50 to 999999.99, "
            "and the least not above the most."
        )
    return least, most


def checkout_open_s() -> int:
    """How long a payment page stays open before we close it; GUTHABEN_CHECKOUT_OPEN_MINUTES.

    Default 60, from 5 to 1440: Stripe itself closes a page after 24 hours.
    """
    return 60 * whole("GUTHABEN_CHECKOUT_OPEN_MINUTES", 60, 5, 1_440)


def checkout_methods() -> tuple[str, ...]:
    """What a purchase by hand may be paid with: GUTHABEN_CHECKOUT_METHODS, default card,twint.

    A page offers those of them that are switched on at Stripe.
    """
    found = _text("GUTHABEN_CHECKOUT_METHODS") or "card,twint"
    methods = tuple(dict.fromkeys(part.strip().lower() for part in found.split(",")))
    if not set(methods) <= {"card", "twint"}:
        raise ConfigError("GUTHABEN_CHECKOUT_METHODS is card, twint, or both by a comma.")
    return methods


def default_language() -> str:
    """The language for a practice that asked for none: GUTHABEN_LANGUAGE, default de."""
    found = (_text("GUTHABEN_LANGUAGE") or "de").lower()
    if found not in ("de", "fr", "it", "en"):
        raise ConfigError("GUTHABEN_LANGUAGE must be de, fr, it or en.")
    return found


def _rappen(name: str, default: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})(?:\.([0-9]{1,2}))?", _text(name) or default, re.ASCII)
    if match is None:
        raise ConfigError(f"{name} must be an amount in CHF such as 10 or 10.50.")
    whole, rest = match.groups()
    return int(whole) * 100 + int((rest or "").ljust(2, "0"))


# ---------------------------------------------------------------- Stripe


def stripe_secret_key() -> str | None:
    """The key that all requests to Stripe carry; None without one."""
    return _text("STRIPE_SECRET_KEY") or None


def stripe_webhook_secrets() -> tuple[str, ...]:
    """The secrets of the webhook endpoint: two, separated by a comma, while one is rolled."""
    parts = (part.strip() for part in _text("STRIPE_WEBHOOK_SECRET").split(","))
    return tuple(part for part in parts if part)


def stripe_success_url() -> str | None:
    """Where a subscription's checkout leads after payment; None leaves it to the caller."""
    return _text("STRIPE_SUCCESS_URL") or None


def stripe_cancel_url() -> str | None:
    """Where a checkout leads when the customer turns back."""
    return _text("STRIPE_CANCEL_URL") or None


def stripe_api_base() -> str | None:
    """Where the sandbox stands in for Stripe; None means Stripe itself."""
    return web_address("GUTHABEN_STRIPE_API_BASE").rstrip("/") or None


def livemode_expected() -> bool | None:
    """Whether the key moves real money: True live, False test, None without a key.

    A key of unknown kind raises ConfigError: guessing would switch off the check that keeps
    test events from crediting live practices.
    """
    key = stripe_secret_key()
    if key is None:
        return None
    if key.startswith(("sk_live_", "rk_live_")):
        return True
    if key.startswith(("sk_test_", "rk_test_")):
        return False
    raise ConfigError(
        "STRIPE_SECRET_KEY is no secret key: it must start with sk_live_, rk_live_, sk_test_ "
        "or rk_test_."
    )


def stripe_account_id() -> str | None:
    """Our own account at Stripe, `acct_...`; None takes events that name no account only."""
    return _shaped("GUTHABEN_STRIPE_ACCOUNT", r"acct_[A-Za-z0-9]{1,60}") or None


def installation() -> str:
    """The name of this installation where several share one Stripe account; default none."""
    return _shaped("GUTHABEN_INSTALLATION", r"[A-Za-z0-9_.-]{1,40}")


# ---------------------------------------------------------------- the server


def api_token() -> str | None:
    """The shared token of the four modules' routes; None means that nobody is let in."""
    return _text("AZA_API_TOKEN") or None


def admin_token() -> str | None:
    """The token of the application's own administration; None lets nobody in."""
    return _text("AZA_ADMIN_TOKEN") or None


def trust_practice_header() -> bool:
    """Whether X-Practice-Id counts beside the shared token; default off."""
    return _switched_on("GUTHABEN_TRUST_PRACTICE_HEADER")


def database_url() -> str | None:
    """Where the engine keeps its books, as sqlite:/// or postgresql:// URL."""
    return _text("GUTHABEN_DATABASE_URL") or None


def writer_lanes(least: int = 1) -> int:
    """How many writers share a PostgreSQL, 1 to 64; by default one for two cores, or `least`."""
    return whole("GUTHABEN_WRITER_LANES", max(least, (os.cpu_count() or 1) // 2), 1, 64)


def time_zone() -> str:
    """The IANA name of the zone whose months the caps count."""
    name = _text("GUTHABEN_TIME_ZONE") or "Europe/Zurich"
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        known = "use a name such as Europe/Zurich"
        raise ConfigError(f"GUTHABEN_TIME_ZONE {name!r} is unknown: {known}.") from error
    return name


def host() -> str:
    """The address the server listens at; default only this machine."""
    return _text("GUTHABEN_HOST") or "127.0.0.1"


def port() -> int:
    """The port the server listens at, 1 to 65535; default 8420."""
    return whole("GUTHABEN_PORT", 8420, 1, 65_535)


def public_url() -> str | None:
    """Where customers reach the server, without a slash at the end; raises ConfigError for none."""
    return web_address("GUTHABEN_PUBLIC_URL").rstrip("/") or None


def variable(name: str) -> str:
    """A variable that the gateway's own settings name, such as a provider's key; "" if not set."""
    return _text(name)


def log_level() -> str:
    """The lowest level that is logged; default INFO."""
    level = (_text("GUTHABEN_LOG_LEVEL") or "INFO").upper()
    if level not in _LOG_LEVELS:
        known = ", ".join(sorted(_LOG_LEVELS))
        raise ConfigError(f"GUTHABEN_LOG_LEVEL must be one of {known}, not {level!r}.")
    return level


# ---------------------------------------------------------------- telling people


@dataclass(frozen=True, slots=True)
class MailSettings:
    """Where e-mail is handed over, and whose name it bears; `security`: starttls, tls or none."""

    host: str
    port: int
    security: str
    user: str | None
    password: str | None = field(repr=False)
    sender: str
    sender_name: str


def mail() -> MailSettings | None:
    """The mail server; None without GUTHABEN_SMTP_HOST, then e-mail is kept and not sent."""
    host = _text("GUTHABEN_SMTP_HOST")
    if not host:
        return None
    security = _text("GUTHABEN_SMTP_SECURITY", "starttls").lower()
    if security not in {"starttls", "tls", "none"}:
        raise ConfigError("GUTHABEN_SMTP_SECURITY must be starttls, tls or none.")
    if security == "none" and host not in _THIS_MACHINE:
        raise ConfigError("GUTHABEN_SMTP_SECURITY none is for a mail server on this machine only.")
    sender = _text("GUTHABEN_MAIL_FROM")
    if domain_of(sender) is None:
        raise ConfigError("GUTHABEN_MAIL_FROM must be the address that e-mail comes from.")
    return MailSettings(
        host,
        whole("GUTHABEN_SMTP_PORT", 465 if security == "tls" else 587, 1, 65_535),
        security,
        _text("GUTHABEN_SMTP_USER") or None,
        _text("GUTHABEN_SMTP_PASSWORD") or None,
        sender,
        _text("GUTHABEN_MAIL_FROM_NAME", "Guthaben"),
    )


def webhooks_allow_private() -> bool:
    """Whether webhooks may go to http and to private addresses: for tests at home; default off."""
    return _switched_on("GUTHABEN_WEBHOOKS_ALLOW_PRIVATE")


def check_live_ready() -> None:
    """Refuse to start with a live key while something would lose or leak real money.

    Raises ConfigError that lists everything to mend; without a live key it does nothing.
    """
    if not livemode_expected():
        return
    problems = []
    if not stripe_webhook_secrets():
        problems.append("STRIPE_WEBHOOK_SECRET is missing: payments could not be confirmed")
    if any(not secret.startswith("whsec_") for secret in stripe_webhook_secrets()):
        problems.append("STRIPE_WEBHOOK_SECRET must start with whsec_")
    base = stripe_api_base()
    if base is not None and not base.startswith("https://"):
        problems.append("GUTHABEN_STRIPE_API_BASE must be https: the live key would travel open")
    if problems:
        raise ConfigError(f"Not ready for a live Stripe key: {'; '.join(problems)}.")


def _text(name: str, default: str = "") -> str:
    return os.environ.get(name, default).strip()


def whole(name: str, default: int, least: int, most: int) -> int:
    """A whole number within bounds, from the variable of this name; raises ConfigError."""
    digits = _text(name) or str(default)
    if not re.fullmatch("[0-9]{1,12}", digits) or not least <= int(digits) <= most:
        raise ConfigError(f"{name} must be {least} to {most}, not {digits[:20]!r}.")
    return int(digits)


def web_address(name: str) -> str:
    """An http or https URL, from the variable of this name; "" if not set; raises ConfigError."""
    found = _text(name)
    try:
        is_one = urlsplit(found).scheme in ("http", "https") and bool(urlsplit(found).hostname)
    except ValueError:
        is_one = False
    if found and not is_one:
        raise ConfigError(f"{name} must be a URL such as https://credit.example.com.")
    return found


def _shaped(name: str, shape: str) -> str:
    if (found := _text(name)) and not re.fullmatch(shape, found):
        raise ConfigError(f"{name} must look like {shape}.")
    return found


def _switched_on(name: str) -> bool:
    return _text(name).lower() in _ON
