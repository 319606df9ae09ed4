"""Owns the reading of Stripe's form encoding: `a=1`, `a[b]=1`, `a[]=1`, `a[0][b]=1`.

`Params` hands out values already checked and names a bad one in Stripe's way. It never guesses:
`20.5` is not an integer and `yes` is not a boolean.
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlsplit

from guthaben.sandbox.errors import ApiError, JsonObject, invalid, missing_parameter

Node = str | dict[str, "Node"]

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_PART = re.compile(r"\[([^\[\]]*)\]")
_NUMBER = re.compile(r"[0-9]{1,4}")
_INTEGER = re.compile(r"-?[0-9]{1,15}")
_MAX_DEPTH = 6
_MAX_METADATA_KEYS = 50
_MAX_METADATA_KEY = 40
_MAX_METADATA_VALUE = 500


def words(text: str) -> frozenset[str]:
    """Return the words of a text, such as the names that an endpoint knows."""
    return frozenset(text.split())


def pairs_of(body: bytes) -> list[tuple[str, str]]:
    """Split a form body or a query into pairs, in their order."""
    try:
        text = body.decode("utf-8")
        return parse_qsl(text, keep_blank_values=True, strict_parsing=False, errors="strict")
    except ValueError as bad:
        raise ApiError(400, "The request's body is no valid UTF-8 form.") from bad


def parse(pairs: Iterable[tuple[str, str]]) -> "Params":
    """Build the tree of parameters out of bracketed names."""
    tree: dict[str, Node] = {}
    for name, value in pairs:
        found = _NAME.fullmatch(name)
        if found is None:
            raise invalid(f"Invalid parameter name: {name[:80]}", name[:80])
        _insert(tree, [found[1], *_PART.findall(found[2])], value, name)
    return Params(tree)


def _insert(tree: dict[str, Node], path: list[str], value: str, name: str) -> None:
    if len(path) > _MAX_DEPTH:
        raise invalid("The parameter is nested too deeply.", name)
    for part in path[:-1]:
        child = tree.setdefault(part or str(len(tree)), {})
        if isinstance(child, str):
            raise invalid(f"{name} is given both as a value and as a group.", name)
        tree = child
    last = path[-1] or str(len(tree))
    if isinstance(tree.get(last), dict):
        raise invalid(f"{name} is given both as a value and as a group.", name)
    tree[last] = value


class Params:
    """The parameters of one request, or one nested group of them."""

    def __init__(self, tree: dict[str, Node], prefix: str = "") -> None:
        self._tree = tree
        self._prefix = prefix

    def __contains__(self, name: str) -> bool:
        return name in self._tree

    def __bool__(self) -> bool:
        return bool(self._tree)

    @property
    def tree(self) -> dict[str, Node]:
        """Return the parameters as they came."""
        return self._tree

    def path(self, name: str) -> str:
        """Return the full name as the caller wrote it."""
        return f"{self._prefix}[{name}]" if self._prefix else name

    def allow(self, names: frozenset[str]) -> None:
        """Refuse the first parameter that is not among `names`."""
        for name in self._tree:
            if name not in names:
                where = self.path(name)
                raise invalid(f"Received unknown parameter: {where}", where, "parameter_unknown")

    def text(self, name: str, *, limit: int = 5000) -> str | None:
        """Return a text; an absent or empty one is None."""
        value = self._tree.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, dict):
            raise invalid(f"Invalid string: {self.path(name)}", self.path(name))
        if len(value) > limit:
            raise invalid(f"Invalid string: at most {limit} characters.", self.path(name))
        return value

    def required(self, name: str) -> str:
        """Return a text that must be there."""
        value = self.text(name)
        if value is None:
            raise missing_parameter(self.path(name))
        return value

    def integer(self, name: str, *, minimum: int | None = None) -> int | None:
        """Return an integer, written as digits only."""
        value = self.text(name)
        if value is None:
            return None
        where = self.path(name)
        if _INTEGER.fullmatch(value) is None:
            raise invalid(f"Invalid integer: {value[:40]}", where, "parameter_invalid_integer")
        number = int(value)
        if minimum is not None and number < minimum:
            message = f"This value must be greater than or equal to {minimum}."
            raise invalid(message, where, "parameter_invalid_integer")
        return number

    def flag(self, name: str) -> bool:
        """Return a boolean; absent is False."""
        value = self.text(name)
        if value not in (None, "true", "false"):
            raise invalid(f"Invalid boolean: {value[:40] if value else value}", self.path(name))
        return value == "true"

    def choice(self, name: str, options: tuple[str, ...]) -> str | None:
        """Return one of a closed set of words."""
        value = self.text(name)
        if value is not None and value not in options:
            known = ", ".join(options)
            message = f"Invalid {self.path(name)}: must be one of {known}"
            raise invalid(message, self.path(name))
        return value

    def url(self, name: str) -> str | None:
        """Return an absolute http(s) address."""
        value = self.text(name)
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise invalid("Not a valid URL", self.path(name), "url_invalid")
        return value

    def group(self, name: str) -> "Params":
        """Return a nested group; an absent one is empty."""
        value = self._tree.get(name, "")
        if isinstance(value, dict):
            return Params(value, self.path(name))
        if value:
            raise invalid(f"Invalid object: {self.path(name)}", self.path(name))
        return Params({}, self.path(name))

    def is_group(self, name: str) -> bool:
        """Tell whether the value is a nested group."""
        return isinstance(self._tree.get(name), dict)

    def rows(self, name: str) -> list["Params"]:
        """Return a list of groups, in the order of their numbers."""
        outer = self.group(name)
        return [outer.group(key) for key in outer._numbered()]

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, in the order of their numbers."""
        outer = self.group(name)
        return [outer.required(key) for key in outer._numbered()]

    def _numbered(self) -> list[str]:
        if not all(_NUMBER.fullmatch(key) for key in self._tree):
            raise invalid("Invalid array", self._prefix)
        return sorted(self._tree, key=int)

    def metadata(self, old: dict[str, str] | None = None) -> dict[str, str]:
        """Return `metadata` merged into `old`; an empty value removes its key, `""` all keys."""
        if self._tree.get("metadata") == "":
            return {}
        merged = dict(old or {})
        group = self.group("metadata")
        for key, value in group._tree.items():
            self._check_metadata(group.path(key), key, value)
            merged[key] = str(value)
        merged = {key: value for key, value in merged.items() if value != ""}
        if len(merged) > _MAX_METADATA_KEYS:
            raise invalid(f"Metadata can have up to {_MAX_METADATA_KEYS} keys.", "metadata")
        return merged

    @staticmethod
    def _check_metadata(where: str, key: str, value: Node) -> None:
        if isinstance(value, dict):
            raise invalid("Metadata values must be strings.", where)
        if len(key) > _MAX_METADATA_KEY:
            raise invalid(f"Metadata keys can be up to {_MAX_METADATA_KEY} characters.", where)
        if len(value) > _MAX_METADATA_VALUE:
            message = f"Metadata values can be up to {_MAX_METADATA_VALUE} characters."
            raise invalid(message, where)

    def plain(self, name: str) -> JsonObject | None:
        """Return a group as JSON, for parts that are only shown back; absent is None."""
        return _plain(self.group(name)._tree) if name in self._tree else None


def _plain(tree: dict[str, Node]) -> JsonObject:
    words = {"true": True, "false": False, "": None}
    return {k: _plain(v) if isinstance(v, dict) else words.get(v, v) for k, v in tree.items()}
