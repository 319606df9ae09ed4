"""Owns the check of a request's parameters against the SDK's types, with Stripe's own refusals.

What no type says (amounts too small, a card that is another's) is checked by the handlers.
"""

import re

from guthaben.sandbox.errors import ApiError, invalid, missing_parameter
from guthaben.sandbox.form import Node, Params
from guthaben.sandbox.sdk_types import Group, Kind, ListOf, MapOf, OneOf, Scalar, group_of, names_of

_INTEGER = re.compile(r"-?[0-9]{1,15}")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_PLACE = re.compile(r"[0-9]{1,4}")

# Parameters that the API took until a version, and says so.
_GONE = {"payment_method_types": "use allowed_payment_method_types (API 2026-09-30)."}


def check(method: str, path: str, params: Params) -> None:
    """Refuse the first parameter that the endpoint doesn't take, as the SDK's types say."""
    group = group_of(method, path)
    if group is not None:
        _check_group(params.tree, group, "")


def _check_group(tree: dict[str, Node], group: Group, where: str) -> None:
    names = names_of(group.type_)
    for name, node in tree.items():
        inner = f"{where}[{name}]" if where else name
        if name in _GONE and name not in names.kinds:
            message = f"{inner} is supported no longer: {_GONE[name]}"
            raise invalid(message, inner, f"{name}_no_longer_supported")
        if name not in names.kinds:
            message = f"Received unknown parameter: {inner}"
            raise invalid(message, inner, "parameter_unknown")
        _check(node, names.kinds[name], inner)
    missing = sorted(names.required - tree.keys())
    if missing:
        raise missing_parameter(f"{where}[{missing[0]}]" if where else missing[0])


def _check(node: Node, kind: Kind, where: str) -> None:
    match kind:
        case OneOf(kinds):
            _check_any(node, kinds, where)
        case Group() | ListOf() | MapOf():
            _check_nested(node, kind, where)
        case Scalar():
            _check_scalar(node, kind, where)


def _check_any(node: Node, kinds: tuple[Kind, ...], where: str) -> None:
    nested = isinstance(node, dict)
    fitting = [kind for kind in kinds if nested != isinstance(kind, Scalar)] or list(kinds)
    refusal: ApiError | None = None
    for kind in fitting:
        try:
            _check(node, kind, where)
        except ApiError as bad:
            refusal = refusal or bad
        else:
            return
    if refusal is not None:
        raise refusal


def _check_nested(node: Node, kind: Group | ListOf | MapOf, where: str) -> None:
    if isinstance(node, str):
        if node == "":
            return  # an empty text empties the group
        word = "array" if isinstance(kind, ListOf) else "object"
        raise invalid(f"Invalid {word}: {where}", where)
    if isinstance(kind, Group):
        _check_group(node, kind, where)
    elif isinstance(kind, ListOf):
        for place, entry in node.items():
            if _PLACE.fullmatch(place) is None:
                raise invalid(f"Invalid array: {where}", where)
            _check(entry, kind.entry, f"{where}[{place}]")


def _check_scalar(node: Node, kind: Scalar, where: str) -> None:
    if isinstance(node, dict):
        raise invalid(f"Invalid {kind.kind}: {where}", where)
    if node == "":
        return  # as if it had not been given
    if kind.kind == "integer" and _INTEGER.fullmatch(node) is None:
        raise invalid(f"Invalid integer: {node[:40]}", where, "parameter_invalid_integer")
    if kind.kind == "number" and _NUMBER.fullmatch(node) is None:
        raise invalid(f"Invalid number: {node[:40]}", where)
    if kind.kind == "boolean" and node not in ("true", "false"):
        raise invalid(f"Invalid boolean: {node[:40]}", where)
    if kind.options and node not in kind.options:
        known = ", ".join(option for option in kind.options if option)
        raise invalid(f"Invalid {where}: must be one of {known}", where)
