"""Parts of the gateway by themselves: languages, limits, forms, headers, the configuration."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from starlette.datastructures import Headers

from guthaben.domain.caps import Cap
from guthaben.errors import CapExceeded, ConfigError, InsufficientCredit, Refused
from guthaben.services import upstreams
from guthaben.services.ai_quotes import LEAST_OUTPUT_TOKENS, Fitting, Quote, quote
from guthaben.services.upstreams import Upstream
from guthaben.texts import LANGUAGES
from guthaben.web.gateway import bodies, errors, pool, texts
from guthaben.web.gateway.bodies import Form, Upload
from guthaben.web.gateway.limits import Limits
from guthaben.web.gateway.settings import GatewaySettings
from guthaben.web.problems import Problem
from tests.domain.price_desk import BOOK, NOW


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_say_what_there_is_and_where_to_buy(language: str) -> None:
    error = InsufficientCredit(1_500_000_000, 2_000_000_000)
    said = texts.say(errors.of_credit(error, "https://x.ch/buy"), language)
    assert "1.50 USD" in said
    assert "2.00 USD" in said
    assert said.endswith(": https://x.ch/buy")
    assert texts.say(errors.of_credit(error, None), language).endswith(".")
    assert "0.25 USD" in texts.say(errors.of_error(CapExceeded(250_000_000, 1)), language)
    wait = Problem(429, "rate_limit_exceeded", "x", seconds=7)
    assert " 7 " in texts.say(wait, language)
    technical = Problem(502, "upstream_lost", "The answer was lost.")
    assert texts.say(technical, language) == "The answer was lost."


# ---------------------------------------------------------------- what is asked for


def quoted(**more: Any) -> Quote:
    """A chat with a model that costs 1,000 nano-USD per token."""
    body = {"model": "gpt-azure", "messages": [{"role": "user", "content": "hi"}], **more}
    return quote(BOOK, "chat", body, NOW, provider="azure")


TAKEN = quoted(max_tokens=1).fit(0, 1).amount_nano_usd - 1_000
"""What the question costs at most."""


def fitting(most: int = 4_096, **more: Any) -> Fitting:
    return Fitting(quoted(**more), most)


def asked(it: Fitting) -> tuple[int, bool]:
    """How many tokens of an answer are asked for, and whether that is not the last word."""
    command = it.command("k", {})
    return (command.amount_nano_usd - TAKEN) // 1_000, command.is_tentative


def left(tokens: int) -> int:
    return TAKEN + tokens * 1_000


def test_what_has_a_limit_is_asked_for_once_and_plainly() -> None:
    it = fitting(max_tokens=50)
    assert asked(it) == (50, False)
    assert not it.goes_on(left(49))


def test_what_has_none_fits_into_what_is_left() -> None:
    it = fitting()
    assert asked(it) == (4_096, True)
    assert it.goes_on(left(21) - 1)
    assert asked(it) == (20, True)


@pytest.mark.parametrize(("most", "least"), [(4_096, LEAST_OUTPUT_TOKENS), (5, 5)])
def test_the_shortest_answer_is_asked_for_once_and_plainly(most: int, least: int) -> None:
    """Its refusal tells what is needed at least, and counts as a lack of credit."""
    it = fitting(most)
    assert it.goes_on(left(least) - 1)
    assert asked(it) == (least, False)
    assert not it.goes_on(left(least) - 1)


def test_whoever_keeps_coming_too_late_asks_plainly_at_last() -> None:
    it = fitting()
    heard = [asked(it)]
    for tokens in (90, 80, 70, 60, 50, 40):
        if not it.goes_on(left(tokens)):
            break
        heard.append(asked(it))
    assert [tentative for _, tentative in heard] == [True, True, True, True, False]
    assert heard[-1] == (60, False)


def test_who_waits_for_credit_does_so_once_and_begins_anew() -> None:
    it, error = fitting(), InsufficientCredit(0, 1)
    assert it.goes_on(0)
    assert it.may_wait(error)
    assert not it.may_wait(CapExceeded(0, 1))
    again = it.anew()
    assert asked(again) == (4_096, True)
    assert not again.may_wait(error)


# ---------------------------------------------------------------- limits


def limited(cap: Cap) -> tuple[Limits, SimpleNamespace]:
    clock = SimpleNamespace(now_s=0.0)
    return Limits(lambda *_: [("p key:k", cap)], clock_s=lambda: clock.now_s), clock


def test_so_many_in_a_minute_and_no_more() -> None:
    limits, clock = limited(Cap("key:k", per_minute=3))
    for _ in range(3):
        with limits.enter("p", "k", ""):
            clock.now_s += 10
    with pytest.raises(Problem) as refused, limits.enter("p", "k", ""):
        pass
    assert refused.value.headers["Retry-After"] == "31"
    clock.now_s = 60
    with limits.enter("p", "k", ""):
        pass


def test_so_many_at_once_and_a_refused_one_takes_no_place() -> None:
    limits, _ = limited(Cap("key:k", at_once=1))
    with limits.enter("p", "k", ""):
        for _ in range(3):
            with pytest.raises(Problem), limits.enter("p", "k", ""):
                pass
    with pytest.raises(KeyError), limits.enter("p", "k", ""):
        raise KeyError
    with limits.enter("p", "k", ""):
        pass
    assert limits._running == {}


# ---------------------------------------------------------------- forms

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]))
NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20)
ODD = st.sampled_from(['a"b', "a\r\nX-Injected: 1", "ä", "%22", "a;b", "a\\"])


@given(
    st.lists(st.tuples(NAMES | ODD, TEXTS), max_size=5),
    st.lists(st.tuples(NAMES | ODD, st.binary(max_size=200)), max_size=3),
)
async def test_a_form_that_is_written_anew_is_the_same(
    values: list[tuple[str, str]], files: list[tuple[str, bytes]]
) -> None:
    uploads = tuple(Upload(name, "f.wav", "audio/wav", data) for name, data in files)
    body, kind = bodies.form_written(Form(tuple(values), uploads))
    read = await bodies.form(body, Headers({"content-type": kind}))
    assert [value for _, value in read.texts] == [value for _, value in values]
    assert [file.data for file in read.files] == [data for _, data in files]
    assert b"X-Injected: 1\r\n" not in body.split(b"\r\n\r\n")[0]


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"\xff", b'{"a":NaN}', b"[" * 100_000, b'"x"'])
async def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Problem):
        await bodies.parsed(raw)


async def test_a_body_that_is_too_long_is_refused_early() -> None:
    async def never() -> Any:
        raise AssertionError

    with pytest.raises(Problem) as refused:
        await bodies.read(never, Headers({"content-length": str(bodies.MOST_BYTES + 1)}))
    assert refused.value.status == 413


async def test_who_leaves_before_the_body_is_there_is_answered_by_nobody() -> None:
    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(bodies.ClientGone):
        await bodies.read(gone, Headers({}))


# ---------------------------------------------------------------- headers

UPSTREAM = Upstream("u", "https://u.example.com/v1", "provider-key", {"m": "m"})
SECRET = ("authorization", "cookie", "api-key", "x-api-key", "proxy-authorization", "host",
          "connection", "te", "transfer-encoding", "upgrade", "x-practice-id", "x-device-id",
          "content-length", "accept-encoding", "openai-organization")  # fmt: skip


@given(st.dictionaries(st.sampled_from([*SECRET, "accept", "openai-beta"]), st.just("canary")))
def test_only_what_is_listed_goes_out(sent: dict[str, str]) -> None:
    found = pool.outgoing(UPSTREAM, Headers(sent), "application/json")
    passed = {name for name, value in found.items() if value == "canary"}
    assert passed == {"accept", "openai-beta"} & sent.keys()
    assert found["authorization"] == "Bearer provider-key"


def test_only_what_is_listed_comes_back() -> None:
    told = [("Set-Cookie", "a"), ("Connection", "close"), ("Transfer-Encoding", "chunked"),
            ("Server", "x"), ("Content-Encoding", "gzip"), ("Openai-Organization", "ours"),
            ("Retry-After", "3"), ("X-Request-Id", "r"), ("X-RateLimit-Remaining-Tokens", "5"),
            ("Content-Type", "application/json"), ("Strict-Transport-Security", "x")]  # fmt: skip
    answer: Any = SimpleNamespace(headers=CIMultiDict(told))
    assert [name for name, _ in pool.incoming(answer)] == [
        b"retry-after", b"x-request-id", b"x-ratelimit-remaining-tokens", b"content-type"
    ]  # fmt: skip


# ---------------------------------------------------------------- configuration

GOOD: dict[str, Any] = {"url": "https://api.openai.com/v1", "key_env": "OPENAI_API_KEY",
                        "models": ["gpt-*"]}  # fmt: skip


def configured(monkeypatch: pytest.MonkeyPatch, said: Any) -> upstreams.Upstreams:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    text = said if isinstance(said, str) else json.dumps(said)
    monkeypatch.setenv("GUTHABEN_UPSTREAMS", text)
    return upstreams.configured()


@pytest.mark.parametrize(
    "wrong",
    [{"url": "api.openai.com"}, {"url": "ftp://x"}, {"key_env": "sk-proj-written-down"},
     {"key_env": "NOT_SET_ANYWHERE"}, {"key_env": ""}, {"models": []}, {"models": "gpt-4o"},
     {"models": {"a": 5}}, {"kind": "azure"}, {"kind": "other"}, {"auth": "basic"},
     {"key": "sk-written-down"}, {"modles": []}],
)  # fmt: skip
def test_a_wrong_provider_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as refused:
        configured(monkeypatch, {"one": {**GOOD, **wrong}})
    assert "written-down" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}x", "/no/such/file.json", '{"a": 5}'])
def test_what_is_no_configuration_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ConfigError):
        configured(monkeypatch, text)


def test_the_first_provider_that_matches_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    said = {
        "azure": {**GOOD, "kind": "azure", "url": "https://a.example.com/", "api_version": "v",
                  "models": {"gpt-4o": "dep/1"}},
        "openai": GOOD,
    }  # fmt: skip
    file = tmp_path / "upstreams.json"
    file.write_text(json.dumps(said))
    found = configured(monkeypatch, str(file))
    azure, name = found.find("gpt-4o")
    assert (azure.name, name) == ("azure", "dep/1")
    assert azure.address("chat", name) == (
        "https://a.example.com/openai/deployments/dep%2F1/chat/completions?api-version=v"
    )
    assert azure.headers() == {"api-key": "sk-canary"}
    openai, name = found.find("gpt-4o-mini")
    assert (openai.name, name, openai.service_tier) == ("openai", "gpt-4o-mini", True)
    assert openai.address("images", name) == "https://api.openai.com/v1/images/generations"
    assert found.names() == ["gpt-4o"]
    assert "sk-canary" not in repr(found.all)
    with pytest.raises(Refused):
        found.find("claude-opus-5")


def test_without_providers_the_gateway_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GatewaySettings.from_environment()
    assert settings.upstreams.all == ()
    assert (settings.timeout_s, settings.drain_s, settings.on_loss) == (600, 30, "charge")
    monkeypatch.setenv("GUTHABEN_GATEWAY_ON_LOSS", "release")
    assert GatewaySettings.from_environment().on_loss == "release"
    for wrong in ("0", "-1", "x", "１２", "99999999"):
        monkeypatch.setenv("GUTHABEN_GATEWAY_TIMEOUT_S", wrong)
        with pytest.raises(ConfigError):
            GatewaySettings.from_environment()
    monkeypatch.delenv("GUTHABEN_GATEWAY_TIMEOUT_S")
    monkeypatch.setenv("GUTHABEN_TOPUP_URL", "https://app.example.com/credit/")
    assert GatewaySettings.from_environment().topup_url == "https://app.example.com/credit/"
    for wrong in ("app.example.com", "ftp://a", "https://", "http://["):
        monkeypatch.setenv("GUTHABEN_TOPUP_URL", wrong)
        with pytest.raises(ConfigError, match="GUTHABEN_TOPUP_URL must be a URL"):
            GatewaySettings.from_environment()
