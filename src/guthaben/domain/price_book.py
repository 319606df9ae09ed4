"""The price book: one version of all prices; a name and an instant give a rate card.

Law: pure and immutable (what it keeps of its own work decides nothing). A name means one model, the
vendor's own prices stand before the imported ones, and an unknown model is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from guthaben.domain.grants import NEVER_S
from guthaben.domain.metering import Context, Metered
from guthaben.domain.price_match import (
    Found,
    Matcher,
    Shelf,
    find_host,
    find_maker,
    find_model,
    find_shelf,
    matcher,
)
from guthaben.domain.price_sheet import (
    FORMAT,
    Document,
    Entry,
    canonical,
    content_hash,
    entry_of,
    margins_of,
    names_fit,
    refused,
)
from guthaben.domain.pricing import NO_MARGIN, Margin, Rate, RateCard, rate_card, unpriced
from guthaben.errors import InvalidInput, Refused

EMPTY_OWN: Final[Document] = {"format": FORMAT, "models": [], "margins": {}}
DEARER: Final = frozenset(
    {
        ("service_tier", "priority"),
        ("service_tier", "fast"),
        ("speed", "fast"),
        ("inference_geo", "us"),
    }
)
"""Circumstances that cost more: refused where a model has no price for them, not undercharged."""
EVERY_PLAN: Final = "*"
_MOST_KEPT: Final = 10_000


class Model(NamedTuple):
    """A model's prices: the last active entry counts, variants refine it, own prices stand over."""

    standard: tuple[Entry, ...] = ()
    variants: tuple[Entry, ...] = ()
    own: tuple[Entry, ...] = ()
    window: int = 0
    """Most input tokens the model takes; 0 where it isn't known."""
    minimum_us: int = 0
    """Audio shorter than this is charged as if it were as long."""

    def entries(self) -> Iterator[Entry]:
        """Give all entries."""
        yield from (*self.standard, *self.variants, *self.own)


class Priced(NamedTuple):
    """A cost and what is recorded of its price."""

    cost_nano_usd: int
    price_version: str


class _Kept(NamedTuple):
    since_s: int
    until_s: int
    card: RateCard


class PriceBook:
    """All prices of one version. `imported` and `own` are sheets as `price_sheet` describes."""

    def __init__(self, imported: Document, own: Document = EMPTY_OWN, version: str = "") -> None:
        for document in (imported, own):
            if document.get("format") != FORMAT:
                raise refused(f"their format is {document.get('format')!r:.20}, not {FORMAT}")
        self.version = version
        self.margins: dict[str, Margin] = margins_of(own)
        self.knows_plans = bool(self.margins.keys() - {EVERY_PLAN})
        """Whether it matters what plan somebody has."""
        self._raw = {(p["id"], m["id"]): m for p in imported["providers"] for m in p["models"]}
        self._own = {(m["provider"], m["model"]): m for m in own["models"]}
        self._shelves = [_shelf(provider) for provider in imported["providers"]]
        known = {shelf.provider for shelf in self._shelves}
        for provider in dict.fromkeys(provider for provider, _ in self._own):
            if provider not in known:
                self._shelves.append(Shelf(provider, None, None, None, ()))
        self._exact = dict(_own_names(own["models"]))
        self._new = {m["model"].lower(): (m["provider"], m["model"]) for m in own["models"]}
        self._models: dict[Found, Model] = {}
        self._found: dict[tuple[str, str], Found] = {}
        self._kept: dict[tuple[str, str, Context, str], _Kept] = {}

    # ---- names

    def find(self, name: str, provider: str = "") -> Found:
        """Find the model that a name means. Raises `Refused` (`unknown_model`), naming it."""
        key = (name, provider)
        found = self._found.get(key)
        if found is None:
            found = self._look_up(name.lower(), provider.lower().strip())
            if found is None:
                raise unknown_model(name, provider)
            _keep(self._found, key, found)
        return found

    def _look_up(self, name: str, provider: str) -> Found | None:
        if provider == "litellm":
            prefix, slash, rest = name.partition("/")
            known = bool(slash) and find_shelf(self._shelves, prefix) is not None
            provider, name = (prefix, rest) if known else ("", name)
        shelf = find_shelf(self._shelves, provider) if provider else None
        if provider and shelf is None:
            return None
        own = self._exact.get((shelf.provider if shelf else "", name))
        if shelf is None:
            shelf = find_maker(self._shelves, name)
            own = own or self._exact.get((shelf.provider if shelf else "", name))
        if own is None and shelf is not None:
            found = find_model(self._shelves, shelf, name)
            if found is not None or provider:
                return found
        own = own or self._new.get(name)
        return self._own_model(*own) if own else None

    def _own_model(self, provider: str, model: str) -> Found:
        """Find a model that has prices of the vendor's own, wherever its other prices stand."""
        shelf = find_shelf(self._shelves, provider)
        found = find_model(self._shelves, shelf, model) if shelf else None
        if (provider, model) in self._raw or found is None or found.model != model:
            return Found(provider, provider, model)
        return found

    def provider_at(self, url: str) -> str | None:
        """Tell whose API a URL is, None if nobody's that is known."""
        shelf = find_host(self._shelves, url)
        return shelf.provider if shelf else None

    def model(self, found: Found) -> Model:
        """Give a model's prices, imported and own."""
        model = self._models.get(found)
        if model is None:
            raw = self._raw.get((found.home, found.model), {})
            own = self._own.get((found.provider, found.model), {})
            model = self._models[found] = _model(raw, own, borrowed=found.home != found.provider)
        return model

    def every(self) -> Iterator[Found]:
        """Give every model that has a price, the vendor's own ones last."""
        for provider, model in (*self._raw, *(key for key in self._own if key not in self._raw)):
            yield Found(provider, provider, model)

    # ---- prices

    def card(
        self, name: str, at_s: int, provider: str = "", context: Context = (), plan: str = ""
    ) -> RateCard:
        """Give the rates of a model at an instant, for circumstances and a plan.

        Raises `Refused`: `unknown_model`, `unpriced_usage` for dearer circumstances without price.
        """
        key = (name, provider, context, plan)
        kept = self._kept.get(key)
        if kept is None or not kept.since_s <= at_s < kept.until_s:
            kept = self._make(self.find(name, provider), at_s, context, plan)
            _keep(self._kept, key, kept)
        return kept.card

    def price(
        self, name: str, usage: Metered, at_s: int, provider: str = "", plan: str = ""
    ) -> Priced:
        """Compute what a call costs, rounded up once, and name the prices that made it.

        Raises `Refused`, naming the model: `unknown_model`, `unpriced_usage`, `cost_too_high`.
        """
        card = self.card(name, at_s, provider, usage.context, plan)
        return Priced(card.cost_nano_usd(usage), card.ref)

    def _make(self, found: Found, at_s: int, context: Context, plan: str) -> _Kept:
        model = self.model(found)
        rates, chosen = rates_at(model, at_s, context)
        for pair in context:
            if pair in DEARER and pair not in chosen:
                raise unpriced(found.model, f"has no price for {pair[0]}={pair[1]}")
        if not rates:
            raise unpriced(found.model, "has no price at this time")
        margin = self.margins.get(plan)
        named = plan if margin is not None else ""
        margin = margin or self.margins.get(EVERY_PLAN, NO_MARGIN)
        ref = self._ref(found, chosen, named)
        turns = [turn for entry in model.entries() for turn in entry.turns_s(at_s)]
        return _Kept(
            max((turn for turn in turns if turn <= at_s), default=0),
            min((turn for turn in turns if turn > at_s), default=NEVER_S),
            rate_card(found.model, ref, rates, margin, model.minimum_us),
        )

    def _ref(self, found: Found, chosen: Iterable[tuple[str, str]], plan: str) -> str:
        circumstances = "".join(f"@{name}={value}" for name, value in sorted(chosen))
        ref = f"{self.version}/{found.provider}/{found.model}{circumstances}"
        return f"{ref}+{plan}" if plan else ref


def rates_at(
    model: Model, at_s: int, context: Context
) -> tuple[dict[str, Rate], frozenset[tuple[str, str]]]:
    """Give the prices that count, and the circumstances that made a difference."""
    rates: dict[str, Rate] = {}
    if model.standard:
        active = [entry for entry in model.standard if entry.active(at_s)]
        _lay_over(rates, active[-1] if active else model.standard[0])
    for entry in model.own:
        if not entry.when and entry.active(at_s):
            _lay_over(rates, entry)
    chosen: set[tuple[str, str]] = set()
    # The first variant that speaks of a price decides it, so they are laid down last to first;
    # the vendor's own come on top, the newest highest.
    special = (*reversed(model.variants), *(entry for entry in model.own if entry.when))
    for entry in special:
        if entry.active(at_s) and set(entry.when) <= set(context):
            _lay_over(rates, entry)
            chosen.update(entry.when)
    return rates, frozenset(chosen)


def _lay_over(rates: dict[str, Rate], entry: Entry) -> None:
    for key, rate in entry.rates:
        if rate is None:
            rates.pop(key, None)
        else:
            rates[key] = rate


def unknown_model(name: str, provider: str = "") -> Refused:
    """Make the refusal of a model that has no price."""
    whose = f" of {provider!r:.60}" if provider else ""
    return Refused(
        f"The model {name!r:.120}{whose} is in no price list. Import newer prices, or add its "
        "price with guthaben prices set.",
        reason="unknown_model",
    )


def version_of(imported: str, own: str, at_s: int) -> tuple[str, str]:
    """Name a version: its day and the hash of both sheets' canonical texts; and that hash."""
    found = content_hash(f"{content_hash(imported)} {content_hash(own)}")
    return f"{datetime.fromtimestamp(at_s, UTC):%Y%m%d}-{found[:12]}", found


def check(imported: Document, own: Document = EMPTY_OWN) -> PriceBook:
    """Read sheets completely, so that nothing in them can fail later. Raises `InvalidInput`."""
    try:
        book = PriceBook(imported, own)
        for found in book.every():
            if not names_fit(found.provider, found.model):
                raise refused(f"the names {found.provider!r:.60}, {found.model!r:.120} don't fit")
            book.model(found)
        canonical(imported)
    except InvalidInput:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise refused(f"they are no price sheet ({error!r:.200})") from error
    return book


# ---------------------------------------------------------------- reading sheets


def _shelf(raw: Document) -> Shelf:
    models = tuple((matcher(model["match"]), model["id"]) for model in raw["models"])
    called, makes, answers = (_test(raw.get(key)) for key in ("is_called", "makes", "answers_at"))
    return Shelf(raw["id"], called, makes, answers, models, tuple(raw.get("fallback", ())))


def _test(clause: Document | None) -> Matcher | None:
    return None if clause is None else matcher(clause)


def _own_names(models: Iterable[Document]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Give the exact names of the vendor's own; an alias needs no provider beside it."""
    for model in models:
        target = (model["provider"], model["model"])
        yield (model["provider"], model["model"].lower()), target
        for alias in model.get("aliases", ()):
            yield (model["provider"], alias.lower()), target
            yield ("", alias.lower()), target


def _model(raw: Document, own: Document, *, borrowed: bool) -> Model:
    return Model(
        _entries(raw, "prices"),
        # Another provider's discounts and surcharges are its own.
        () if borrowed else _entries(raw, "variants"),
        _entries(own, "prices"),
        raw.get("window") or 0,
        raw.get("minimum_us") or 0,
    )


def _entries(raw: Document, name: str) -> tuple[Entry, ...]:
    entries: list[Any] = raw.get(name) or []
    return tuple(map(entry_of, entries))


def _keep(kept: dict[Any, Any], key: object, value: object) -> None:
    # Names come from outside: they must not fill the memory.
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[key] = value
