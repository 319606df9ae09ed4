"""Quotes: what a request to an AI provider can cost at most, and what it cost by its answer.

Law: bound and cost come from one book at one instant, so that they agree. An answer whose usage is
missing or can't be true is charged by what we measured ourselves, else as it was reserved: never
free. Nothing of a request or an answer is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from guthaben.domain.commands import Reserve
from guthaben.domain.metering import INPUT_TOKEN_METERS
from guthaben.domain.money import MAX_COMMAND_NANO_USD
from guthaben.domain.price_book import PriceBook
from guthaben.domain.pricing import RateCard
from guthaben.errors import InsufficientCredit, InvalidInput, Refused
from guthaben.services import media_bounds, request_bounds
from guthaben.services.audio_length import audio_length_us
from guthaben.services.checks import ReserveOptions, SettleOptions
from guthaben.services.provider_usage import Flavour, UsageRead, read_usage
from guthaben.services.request_bounds import Fitted, Request, fit
from guthaben.services.requests import reserve_command
from guthaben.services.token_count import TokenCount, offline_counter

log = logging.getLogger("guthaben")

Endpoint = Literal["chat", "responses", "embeddings", "transcriptions", "speech", "images"]
LEAST_OUTPUT_TOKENS: Final = 16
"""A shorter answer is of no use to anybody (and OpenAI refuses to make it)."""
_TURNS: Final = 5
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_THINKERS: Final = ("o1", "o3", "o4", "gpt-5")


Word = Literal["provider", "measured", "reserved"]


class Bill(NamedTuple):
    """What a call cost, what is recorded of it, and by whose word."""

    cost_nano_usd: int
    options: SettleOptions
    by: Word = "provider"


class Attachments(NamedTuple):
    """What a form brings along: a recording, and how many pictures."""

    recording: bytes = b""
    pictures: int = 0


NO_ATTACHMENTS: Final = Attachments()


@dataclass(frozen=True, slots=True)
class Quote:
    """A request with its prices; made before the call, asked again after it."""

    book: PriceBook
    model: str
    """As it was asked for; found in the book under this name."""
    card: RateCard
    request: Request
    at_s: int
    provider: str = ""
    plan: str = ""
    flavour: Flavour = ""
    count: TokenCount | None = None
    measured: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """What we counted ourselves, for answers that tell no usage."""

    def fit(self, available_nano_usd: int, most_output_tokens: int) -> Fitted:
        """Choose what to reserve of what is available; see `request_bounds.fit`."""
        return fit(self.card, self.request, available_nano_usd, most_output_tokens)

    def bill(self, said: object, reserved_nano_usd: int) -> Bill:
        """Tell what an answer cost: by its usage, else by our own measure, else as reserved."""
        words: list[tuple[Word, object, Mapping[str, int] | None]] = []
        if said is not None:
            words.append(("provider", said, None))
        if self.measured:
            words.append(("measured", None, self.measured))
        for by, told, also in words:
            try:
                read = read_usage(told, self.flavour, also=also, context=self._named())
                cost_nano_usd, version = self._price(read)
            except Refused as error:
                log.warning("a usage can't be priced", extra={"code": error.reason})
                continue
            return Bill(cost_nano_usd, read.options(self.model, version), by)
        return Bill(reserved_nano_usd, {"model": self.model}, "reserved")

    def _named(self) -> dict[str, str]:
        """Give the circumstances that only the request tells: quality and size of pictures."""
        return {name: value for name, value in self.request.context if name != "service_tier"}

    def _price(self, read: UsageRead) -> tuple[int, str]:
        return self.book.price(self.model, read.usage, self.at_s, self.provider, self.plan)

    def seen(self, text_tokens: int) -> Quote:
        """Add what was seen of an answer that nobody heard to its end.

        Models that think unseen are not measured: what they used is not what was seen.
        """
        if text_tokens <= 0 or self.card.model.startswith(_THINKERS):
            return self
        taken = sum(
            limit.at_most for limit in self.request.limits if limit.meters[0] in INPUT_TOKEN_METERS
        )
        return replace(self, measured={"input_tokens": taken, "output_tokens": text_tokens})

    def spoken(self, seconds_us: int, tokens_per_s: int) -> Quote:
        """Add the length of speech that was answered, where it is sold by tokens."""
        if self.measured or seconds_us <= 0:
            return self
        taken = self.request.limits[0].at_most
        made = -(-seconds_us * tokens_per_s // 1_000_000)
        return replace(self, measured={"input_tokens": taken, "output_audio_tokens": made})


class Fitting:
    """Finds what to reserve: nobody asks for the balance, each refusal tells what is left.

    What may still become shorter is asked for tentatively: its refusal is no lack of credit yet.
    """

    def __init__(self, quoted: Quote, most_output_tokens: int, *, has_waited: bool = False) -> None:
        self._quote = quoted
        self._most = most_output_tokens
        self._turns = _TURNS
        self._has_waited = has_waited
        output = quoted.request.output
        self.is_tentative = output is not None and output.at_most < 0
        self.fitted = quoted.fit(MAX_COMMAND_NANO_USD, most_output_tokens)

    @property
    def amount_nano_usd(self) -> int:
        """What to reserve, at least 1."""
        return max(1, self.fitted.amount_nano_usd)

    def command(self, key: str, options: ReserveOptions) -> Reserve:
        """Ask for it."""
        command = reserve_command(self.amount_nano_usd, key, options)
        return command._replace(is_tentative=self.is_tentative)

    def goes_on(self, available_nano_usd: int) -> bool:
        """Choose what to ask for after a refusal; False where that was the last word.

        A shorter answer that is affordable; where none is worth having, or others keep taking what
        was left, the shortest or shorter one once more and plainly, so that its refusal counts.
        """
        if not self.is_tentative:
            return False
        self._turns -= 1
        self.fitted = self._quote.fit(available_nano_usd, self._most)
        too_short = (self.fitted.max_output_tokens or 0) < LEAST_OUTPUT_TOKENS
        if too_short:
            least = min(LEAST_OUTPUT_TOKENS, self._most)
            self.fitted = self._quote.fit(MAX_COMMAND_NANO_USD, least)
        self.is_tentative = not too_short and self._turns > 1
        return True

    def may_wait(self, error: Exception) -> bool:
        """Tell whether a charge under way could help after the last refusal; once, it may."""
        return isinstance(error, InsufficientCredit) and not self._has_waited

    def anew(self) -> Fitting:
        """Begin again with the longest answer, after credit came."""
        return Fitting(self._quote, self._most, has_waited=True)


def quote(
    book: PriceBook,
    endpoint: Endpoint,
    body: Mapping[str, Any],
    at_s: int,
    *,
    model: str = "",
    provider: str = "",
    plan: str = "",
    attached: Attachments = NO_ATTACHMENTS,
) -> Quote:
    """Bound a request by the prices of an instant.

    `model`: the name it is priced by, if that is not the body's. Raises `InvalidInput`
    (`unbounded_request`, `unreadable_audio`), `Refused` (`unknown_model`, `unpriced_usage`).
    """
    name = model or _model_of(body)
    found = book.find(name, provider)
    count = offline_counter(found.model)
    plain = book.card(name, at_s, provider, (), plan)
    asked = _Asked(body, plain, found.model, book.model(found).window, count, attached)
    request, measured = _BOUNDS[endpoint](asked)
    card = book.card(name, at_s, provider, request.context, plan) if request.context else plain
    flavour: Flavour = "images" if endpoint == "images" and not measured else ""
    return Quote(book, name, card, request, at_s, provider, plan, flavour, count, measured)


class _Asked(NamedTuple):
    body: Mapping[str, Any]
    card: RateCard
    model: str
    window: int
    counter: TokenCount | None
    attached: Attachments


_Bounded = tuple[Request, Mapping[str, int]]


def _chat(asked: _Asked) -> _Bounded:
    options: Any = {"model": asked.model, "window": asked.window, "count": asked.counter}
    return request_bounds.chat(asked.body, **options), _NOTHING


def _responses(asked: _Asked) -> _Bounded:
    options: Any = {"model": asked.model, "window": asked.window, "count": asked.counter}
    return request_bounds.responses(asked.body, **options), _NOTHING


def _embeddings(asked: _Asked) -> _Bounded:
    return request_bounds.embeddings(asked.body, count=asked.counter), _NOTHING


def _transcription(asked: _Asked) -> _Bounded:
    length_us = audio_length_us(asked.attached.recording)
    prompt = str(asked.body.get("prompt") or "")
    # Providers count whole seconds.
    whole_us = -(-length_us // 1_000_000) * 1_000_000
    request = media_bounds.transcription(asked.card, whole_us, prompt=prompt, count=asked.counter)
    by_time = asked.card.prices("input_audio_us")
    return request, {"input_audio_us": length_us} if by_time else _NOTHING


def _speech(asked: _Asked) -> _Bounded:
    request = media_bounds.speech(asked.card, asked.body)
    if asked.card.prices("input_characters"):
        return request, {"input_characters": max(1, len(str(asked.body.get("input") or "")))}
    return request, _NOTHING


def _images(asked: _Asked) -> _Bounded:
    request = media_bounds.images(asked.card, asked.body, pictures=asked.attached.pictures)
    if asked.card.prices("output_images"):
        return request, {"output_images": request_bounds.number_of(asked.body, "n", 1)}
    return request, _NOTHING


_BOUNDS: Final[Mapping[Endpoint, Callable[[_Asked], _Bounded]]] = {
    "chat": _chat,
    "responses": _responses,
    "embeddings": _embeddings,
    "transcriptions": _transcription,
    "speech": _speech,
    "images": _images,
}


def _model_of(body: Mapping[str, Any]) -> str:
    name = body.get("model")
    if type(name) is not str or not 0 < len(name) <= 200:
        raise InvalidInput("model must name the model to be asked", field="model")
    return name
