"""Shapes: what a body or a query may hold, read strictly, and described from the same table.

Law: documentation can't drift from reading, because both come from one `Shape`. A field that is
not in the shape is refused. Amounts are decimal strings in ASCII; what is opaque to us must not
look like a secret or an address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from guthaben.domain.money import (
    MAX_COMMAND_NANO_USD,
    format_chf,
    format_usd,
    parse_chf,
    parse_usd,
)
from guthaben.web.problems import Problem, invalid
from guthaben.web.redaction import looks_secret

Schema = dict[str, Any]
Read = Callable[[str, Any], Any]

_USD: Final = "^-?[0-9]{1,9}(\\.[0-9]{1,9})?$"
_CHF: Final = "^-?[0-9]{1,9}(\\.[0-9]{1,2})?$"
_LONGEST_URL: Final = 2_000
_MOST_INTEGER: Final = 10**12


class Field(NamedTuple):
    """One field: how it is read, and how it is described."""

    read: Read
    schema: Schema
    required: bool = False


class Shape(NamedTuple):
    """The fields of one kind of body or query, with an example that is accepted."""

    name: str
    fields: Mapping[str, Field]
    example: Mapping[str, Any]

    def read(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Read what was sent: only what is known, all that is required."""
        for name in found:
            if name not in self.fields:
                raise _unknown(name, self.fields)
        for name, field in self.fields.items():
            if field.required and name not in found:
                raise invalid(f"{name} is missing.", field=name)
        return {name: self.fields[name].read(name, value) for name, value in found.items()}

    def schema(self) -> Schema:
        """Describe the shape as a JSON schema."""
        required = [name for name, field in self.fields.items() if field.required]
        return {
            "title": self.name,
            "type": "object",
            "additionalProperties": False,
            "properties": {name: field.schema for name, field in self.fields.items()},
            **({"required": required} if required else {}),
        }


def _unknown(name: str, fields: Mapping[str, Field]) -> Problem:
    shown = name if name.isascii() and name.isidentifier() and len(name) <= 40 else "one of them"
    return invalid(f"Unknown field: {shown}. Known: {', '.join(fields) or 'none'}.")


def needed(field: Field) -> Field:
    """Require a field."""
    return field._replace(required=True)


# ---------------------------------------------------------------- kinds of fields


def usd(about: str, least_nano_usd: int, most_nano_usd: int = MAX_COMMAND_NANO_USD) -> Field:
    """Read an amount of USD as nano-USD."""
    return _amount(about, "USD", _USD, parse_usd, format_usd, (least_nano_usd, most_nano_usd))


def chf(about: str, least_rappen: int, most_rappen: int) -> Field:
    """Read an amount of CHF as Rappen."""
    return _amount(about, "CHF", _CHF, parse_chf, format_chf, (least_rappen, most_rappen))


def _amount(
    about: str,
    currency: str,
    pattern: str,
    parse: Callable[[str], int],
    show: Callable[[int], str],
    limits: tuple[int, int],
) -> Field:
    least, most = limits
    rule = f"a decimal string in {currency} from {show(least)} to {show(most)}"

    def read(name: str, value: Any) -> int:
        try:
            amount = parse(value) if type(value) is str else None
        except ValueError:
            amount = None
        if amount is None or not least <= amount <= most:
            raise invalid(f"{name} must be {rule}.", field=name, code="invalid_amount")
        return amount

    described = f"{about} {rule[0].upper()}{rule[1:]}."
    return Field(read, {"type": "string", "pattern": pattern, "description": described})


def text(about: str, most: int, *, least: int = 0, opaque: bool = True) -> Field:
    """Read a printable text; an opaque one must not look like a secret or an address."""

    def read(name: str, value: Any) -> str:
        if type(value) is not str or not least <= len(value) <= most or not value.isprintable():
            rule = f"a printable text of {least} to {most} characters"
            raise invalid(f"{name} must be {rule}.", field=name)
        if opaque:
            refuse_secret(name, value)
        return value

    return Field(
        read, {"type": "string", "minLength": least, "maxLength": most, "description": about}
    )


def refuse_secret(name: str, value: str) -> None:
    """Refuse a reference that looks like a secret or an address: it would be kept and shown."""
    if looks_secret(value):
        detail = f"{name} looks like a secret or an address; send an opaque reference."
        raise invalid(detail, field=name, code="looks_secret")


def integer(about: str, least: int = 0, most: int = _MOST_INTEGER) -> Field:
    """Read a whole number."""

    def read(name: str, value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise invalid(f"{name} must be a whole number from {least} to {most}.", field=name)
        return value

    schema = {"type": "integer", "minimum": least, "maximum": most, "description": about}
    return Field(read, schema)


def digits(about: str, least: int, most: int) -> Field:
    """Read a whole number from a query, where everything is text."""
    inner = integer(about, least, most)

    def read(name: str, value: Any) -> int:
        whole = value if value.isascii() and value.isdigit() and len(value) < 20 else "-1"
        return int(inner.read(name, int(whole)))

    return Field(read, inner.schema)


def flag(about: str) -> Field:
    """Read true or false."""

    def read(name: str, value: Any) -> bool:
        if type(value) is not bool:
            raise invalid(f"{name} must be true or false.", field=name)
        return value

    return Field(read, {"type": "boolean", "description": about})


def choice(about: str, *words: str) -> Field:
    """Read one of some words."""

    def read(name: str, value: Any) -> str:
        if type(value) is not str or value not in words:
            raise invalid(f"{name} must be one of: {', '.join(words)}.", field=name)
        return value

    return Field(read, {"type": "string", "enum": list(words), "description": about})


def tags(about: str, most: int = 10) -> Field:
    """Read a small object of texts."""
    key, value_of = text("", 40, least=1), text("", 200)

    def read(name: str, value: Any) -> dict[str, str]:
        if type(value) is not dict or len(value) > most:
            raise invalid(f"{name} must be an object of at most {most} texts.", field=name)
        return {key.read(name, k): value_of.read(name, v) for k, v in value.items()}

    schema = {
        "type": "object",
        "maxProperties": most,
        "additionalProperties": {"type": "string", "maxLength": 200},
        "description": about,
    }
    return Field(read, schema)


def url(about: str) -> Field:
    """Read an absolute http or https address without user, control characters or blanks."""

    def read(name: str, value: Any) -> str:
        if type(value) is not str or not is_web_address(value):
            raise invalid(f"{name} must be an absolute http or https URL.", field=name)
        return value

    schema = {"type": "string", "format": "uri", "maxLength": _LONGEST_URL, "description": about}
    return Field(read, schema)


def is_web_address(value: str) -> bool:
    """Tell whether a text is an absolute http or https URL that a browser may be sent to."""
    # Stripe's own placeholder {CHECKOUT_SESSION_ID} must come through unchanged.
    if len(value) > _LONGEST_URL or not value.isascii() or not value.isprintable():
        return False
    if " " in value or "\\" in value:
        return False
    try:
        parts = urlsplit(value)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and named and "@" not in parts.netloc


def ways_back(
    options: Mapping[str, Any], home: str | None, paths: tuple[str, str]
) -> dict[str, Any]:
    """Say where a provider's page leads after success and after turning back, and its language.

    `paths` of our own pages are for who names no address.
    """
    told: dict[str, Any] = {"locale": options.get("language")}
    for name, path in zip(("success_url", "cancel_url"), paths, strict=True):
        told[name] = options.get(name) or (f"{home}{path}" if home else "")
        if not is_web_address(told[name]):
            raise invalid(f"{name} is missing.", field=name)
    return told
