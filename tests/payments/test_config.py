"""The environment: read at call time, and every doubt falls on the safe side."""

from __future__ import annotations

import pytest

from guthaben import config
from guthaben.errors import ConfigError

NAMES = [
    "AZA_AI_AUTO_TOPUP_ENABLED",
    "AZA_AI_TOPUP_ALLOW_LIVE",
    "AZA_AI_TOPUP_DRY_RUN",
    "AZA_API_TOKEN",
    "GUTHABEN_DATABASE_URL",
    "GUTHABEN_HOST",
    "GUTHABEN_LOG_LEVEL",
    "GUTHABEN_PORT",
    "GUTHABEN_STRIPE_API_BASE",
    "GUTHABEN_TIME_ZONE",
    "GUTHABEN_TRUST_PRACTICE_HEADER",
    "STRIPE_CANCEL_URL",
    "STRIPE_SECRET_KEY",
    "STRIPE_SUCCESS_URL",
    "STRIPE_WEBHOOK_SECRET",
]

Env = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def env(monkeypatch: Env) -> Env:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("AZA_AI_AUTO_TOPUP_ENABLED", config.auto_topup_enabled),
        ("AZA_AI_TOPUP_ALLOW_LIVE", config.topup_allow_live),
        ("GUTHABEN_TRUST_PRACTICE_HEADER", config.trust_practice_header),
    ],
)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, False),
        *[(on, True) for on in ("1", "true", "TRUE", " yes ", "On", "1\n")],
        *[(off, False) for off in ("0", "", " ", "2", "y", "enabled", "wahr", "1.0", "truee")],
    ],
)
def test_switches_that_let_money_move(
    env: Env, name: str, read: object, value: str | None, expected: bool
) -> None:
    assert callable(read)
    if value is not None:
        env.setenv(name, value)
    assert read() is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, True),
        *[(off, False) for off in ("0", "false", "No", " OFF ")],
        *[(on, True) for on in ("1", "", " ", "n", "aus", "00", "disabled", "-1")],
    ],
)
def test_the_dry_run_ends_only_on_a_clear_word(env: Env, value: str | None, expected: bool) -> None:
    if value is not None:
        env.setenv("AZA_AI_TOPUP_DRY_RUN", value)
    assert config.topup_dry_run() is expected


def test_defaults_move_no_money_and_know_no_secret() -> None:
    found = config.settings()
    assert (found.auto_topup_enabled, found.topup_allow_live, found.topup_dry_run) == (
        False,
        False,
        True,
    )
    assert found.stripe_secret_key is None
    assert found.api_token is None
    assert found.livemode_expected is None
    assert found.stripe_webhook_secrets == ()
    assert found.trust_practice_header is False
    assert (found.time_zone, found.host, found.port) == ("Europe/Zurich", "127.0.0.1", 8420)


def test_nothing_is_kept(env: Env) -> None:
    before = config.settings()
    env.setenv("AZA_AI_AUTO_TOPUP_ENABLED", "1")
    env.setenv("STRIPE_SECRET_KEY", "sk_test_x")
    after = config.settings()
    assert (before.auto_topup_enabled, after.auto_topup_enabled) == (False, True)
    assert (before.livemode_expected, after.livemode_expected) == (None, False)


@pytest.mark.parametrize("blank", ["", "  ", "\t\n"])
def test_a_blank_secret_is_none(env: Env, blank: str) -> None:
    for name in ("AZA_API_TOKEN", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"):
        env.setenv(name, blank)
    assert config.api_token() is None
    assert config.stripe_secret_key() is None
    assert config.stripe_webhook_secrets() == ()
    assert config.livemode_expected() is None


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ("whsec_a", ("whsec_a",)),
        ("whsec_a,whsec_b", ("whsec_a", "whsec_b")),
        (" whsec_a , , whsec_b ,", ("whsec_a", "whsec_b")),
    ],
)
def test_webhook_secrets_rotate(env: Env, value: str, secrets: tuple[str, ...]) -> None:
    env.setenv("STRIPE_WEBHOOK_SECRET", value)
    assert config.stripe_webhook_secrets() == secrets


@pytest.mark.parametrize(
    ("key", "live"),
    [
        ("sk_live_test_only", True),
        ("rk_live_1", True),
        ("sk_test_1", False),
        (" rk_test_1 ", False),
    ],
)
def test_the_key_tells_the_mode(env: Env, key: str, live: bool) -> None:
    env.setenv("STRIPE_SECRET_KEY", key)
    assert config.livemode_expected() is live


@pytest.mark.parametrize("key", ["pk_live_1", "sk_1", "SK_LIVE_1", "whsec_1", "x sk_live_1"])
def test_a_key_of_unknown_kind_is_refused_unquoted(env: Env, key: str) -> None:
    env.setenv("STRIPE_SECRET_KEY", key)
    with pytest.raises(ConfigError) as refused:
        config.livemode_expected()
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *[("GUTHABEN_TIME_ZONE", zone) for zone in ("Mars/Base", "../etc/passwd", "Zürich", "/x")],
        *[("GUTHABEN_PORT", port) for port in ("0", "65536", "-1", "80.0", "²", "9" * 9, "http")],
        ("GUTHABEN_PORT", "000842099999"),
        ("GUTHABEN_LOG_LEVEL", "loud"),
        *[("GUTHABEN_STRIPE_API_BASE", url) for url in ("x", "ftp://a", "http://", "http://[")],
        ("STRIPE_SECRET_KEY", "secret"),
    ],
)
def test_nonsense_is_named(env: Env, name: str, bad: str) -> None:
    env.setenv(name, bad)
    with pytest.raises(ConfigError, match=name):
        config.settings()


def test_good_values_pass(env: Env) -> None:
    env.setenv("GUTHABEN_TIME_ZONE", "America/New_York")
    env.setenv("GUTHABEN_PORT", "80")
    env.setenv("GUTHABEN_LOG_LEVEL", "debug")
    env.setenv("GUTHABEN_STRIPE_API_BASE", "http://127.0.0.1:8421/")
    env.setenv("STRIPE_SUCCESS_URL", "https://x/ok")
    found = config.settings()
    assert (found.time_zone, found.port, found.log_level) == ("America/New_York", 80, "DEBUG")
    assert found.stripe_api_base == "http://127.0.0.1:8421"
    assert (found.stripe_success_url, found.stripe_cancel_url) == ("https://x/ok", None)


def test_secrets_stay_out_of_the_repr(env: Env) -> None:
    env.setenv("STRIPE_SECRET_KEY", "sk_test_hidden")
    env.setenv("STRIPE_WEBHOOK_SECRET", "whsec_hidden")
    env.setenv("AZA_API_TOKEN", "token-hidden")
    env.setenv("GUTHABEN_DATABASE_URL", "postgresql://u:hidden@db/x")
    assert "hidden" not in repr(config.settings())


@pytest.mark.parametrize(
    ("key", "secret", "base", "problem"),
    [
        (None, None, None, None),
        ("sk_test_1", None, None, None),
        ("sk_test_1", None, "http://sandbox:1", None),
        ("sk_live_1", "whsec_1", None, None),
        ("sk_live_1", "whsec_1", "https://proxy.example", None),
        ("sk_live_1", None, None, "STRIPE_WEBHOOK_SECRET is missing"),
        ("rk_live_1", " , ", None, "STRIPE_WEBHOOK_SECRET is missing"),
        ("sk_live_1", "whsec_1,other", None, "must start with whsec_"),
        ("sk_live_1", "whsec_1", "http://sandbox:1", "must be https"),
        ("pk_live_1", "whsec_1", None, "no secret key"),
    ],
)
def test_a_live_start_wants_everything_ready(
    env: Env, key: str | None, secret: str | None, base: str | None, problem: str | None
) -> None:
    values = {
        "STRIPE_SECRET_KEY": key,
        "STRIPE_WEBHOOK_SECRET": secret,
        "GUTHABEN_STRIPE_API_BASE": base,
    }
    for name, value in values.items():
        if value is not None:
            env.setenv(name, value)
    if problem is None:
        config.check_live_ready()
    else:
        with pytest.raises(ConfigError, match=problem):
            config.check_live_ready()


@pytest.mark.parametrize(("value", "read"), [
    ("", None), (" acct_1A2b3C ", "acct_1A2b3C"), ("acct_", ...), ("1A2b", ...),
    ("acct_a b", ...),
])  # fmt: skip
def test_our_own_account(monkeypatch: pytest.MonkeyPatch, value: str, read: object) -> None:
    monkeypatch.setenv("GUTHABEN_STRIPE_ACCOUNT", value)
    if read is ...:
        with pytest.raises(ConfigError, match="GUTHABEN_STRIPE_ACCOUNT"):
            config.stripe_account_id()
    else:
        assert config.stripe_account_id() == read


@pytest.mark.parametrize(("value", "read"), [
    ("", ""), (" zurich-1 ", "zurich-1"), ("z" * 41, ...), ("a b", ...), ("\u00fc", ...),
])  # fmt: skip
def test_the_name_of_the_installation(
    monkeypatch: pytest.MonkeyPatch, value: str, read: object
) -> None:
    monkeypatch.setenv("GUTHABEN_INSTALLATION", value)
    if read is ...:
        with pytest.raises(ConfigError, match="GUTHABEN_INSTALLATION"):
            config.installation()
    else:
        assert config.installation() == read


# ---------------------------------------------------------------- purchases by hand


def test_purchases_have_sane_defaults() -> None:
    assert config.topup_limits_rappen() == (1_000, 500_000)
    assert config.checkout_open_s() == 3_600
    assert config.checkout_methods() == ("card", "twint")
    assert config.default_language() == "de"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GUTHABEN_TOPUP_LEAST_CHF", "0.49"),
        ("GUTHABEN_TOPUP_LEAST_CHF", "6000"),
        ("GUTHABEN_TOPUP_LEAST_CHF", "ten"),
        ("GUTHABEN_TOPUP_MOST_CHF", "9.99"),
        ("GUTHABEN_TOPUP_MOST_CHF", "1e3"),
        ("GUTHABEN_TOPUP_MOST_CHF", "-5"),
        ("GUTHABEN_TOPUP_MOST_CHF", "1000000"),
        ("GUTHABEN_CHECKOUT_OPEN_MINUTES", "4"),
        ("GUTHABEN_CHECKOUT_OPEN_MINUTES", "1441"),
        ("GUTHABEN_CHECKOUT_OPEN_MINUTES", "１２"),
        ("GUTHABEN_CHECKOUT_METHODS", "paypal"),
        ("GUTHABEN_CHECKOUT_METHODS", "card,"),
        ("GUTHABEN_LANGUAGE", "rm"),
    ],
)
def test_a_setting_of_purchases_that_makes_no_sense_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    read = {
        "GUTHABEN_CHECKOUT_OPEN_MINUTES": config.checkout_open_s,
        "GUTHABEN_CHECKOUT_METHODS": config.checkout_methods,
        "GUTHABEN_LANGUAGE": config.default_language,
    }.get(name, config.topup_limits_rappen)
    with pytest.raises(ConfigError, match="GUTHABEN_"):
        read()
