"""Owns lists (cursor, limit, filters on fields and creation time) and `expand`."""

from collections.abc import Mapping, Sequence

from guthaben.sandbox.context import Context
from guthaben.sandbox.errors import JsonObject, invalid, no_such
from guthaben.sandbox.form import Params
from guthaben.sandbox.objects import as_list
from guthaben.sandbox.state import MAX_INTEGER

_MAX_LIMIT = 100
_MAX_EXPANSIONS = 20
_PAGING = frozenset({"limit", "starting_after", "ending_before", "created", "expand"})
_SIGNS = ("gt", "gte", "lt", "lte")


def page(
    ctx: Context,
    params: Params,
    kind: str,
    url: str,
    fields: tuple[str, ...] = (),
    *,
    fixed: Mapping[str, str | int] | None = None,
    patterns: Mapping[str, Sequence[str]] | None = None,
    since_s: int = 0,
    also: tuple[str, ...] = (),
) -> JsonObject:
    """Answer a list of objects, newest first, filtered by `fields` and `created`.

    `fixed` and `patterns` (with `*`) are filters that the handler has read, from the parameters
    `also`; `since_s` is the age at which the list ends. Filters that only Stripe knows are refused.
    """
    params.allow(_PAGING | set(fields) | set(also))
    if "starting_after" in params and "ending_before" in params:
        raise invalid("Give starting_after or ending_before, not both.", "ending_before")
    limit = params.integer("limit", minimum=1) or 10
    if limit > _MAX_LIMIT:
        raise invalid(f"limit must be at most {_MAX_LIMIT}.", "limit")
    wanted = {name: value for name in fields if (value := params.text(name)) is not None}
    after, before = _cursor(ctx, params, "starting_after"), _cursor(ctx, params, "ending_before")
    found = ctx.state.select(
        kind,
        wanted | dict(fixed or {}),
        _created(params) | ({"from": since_s} if since_s else {}),
        patterns=patterns,
        above=before or 0,
        below=after or MAX_INTEGER,
        limit=limit + 1,
        oldest_first=before is not None,
    )
    shown = found[:limit] if before is None else found[:limit][::-1]
    return as_list(url, shown, has_more=len(found) > limit)


def _cursor(ctx: Context, params: Params, name: str) -> int | None:
    object_id = params.text(name)
    if object_id is None:
        return None
    position = ctx.state.position(object_id)
    if position is None:
        raise no_such("object", object_id, name)
    return position


def _created(params: Params) -> dict[str, int]:
    if "created" not in params:
        return {}
    if not params.is_group("created"):
        exact = params.integer("created")
        return {} if exact is None else {"gte": exact, "lte": exact}
    group = params.group("created")
    group.allow(frozenset(_SIGNS))
    return {sign: at_s for sign in _SIGNS if (at_s := group.integer(sign)) is not None}


def expand(ctx: Context, answer: JsonObject, params: Params) -> JsonObject:
    """Replace the ids that `expand` names by their objects."""
    paths = params.texts("expand")
    if len(paths) > _MAX_EXPANSIONS:
        raise invalid(f"At most {_MAX_EXPANSIONS} properties can be expanded.", "expand")
    for path in paths:
        _expand(ctx, answer, path.split("."), path)
    return answer


def _expand(ctx: Context, node: JsonObject, path: list[str], whole: str) -> None:
    name, rest = path[0], path[1:]
    _include(ctx, node, name)
    value = node.get(name)
    if isinstance(value, str):
        value = node[name] = ctx.state.find(value)
    elif name in node and value is None:
        return  # an id that is not there yet: nothing to show
    if not isinstance(value, dict | list):
        raise invalid(f"This property cannot be expanded ({whole}).", "expand")
    children = value if isinstance(value, list) else [value]
    for child in children:
        if rest and isinstance(child, dict):
            _expand(ctx, child, rest, whole)


def _include(ctx: Context, node: JsonObject, name: str) -> None:
    """Add the parts that an object shows only when asked."""
    kind = node.get("object")
    if kind == "charge" and name == "refunds":
        refunds = ctx.state.select("refund", {"charge": node["id"]})
        node[name] = as_list(f"/v1/charges/{node['id']}/refunds", refunds)
    elif kind == "checkout.session" and name == "line_items":
        items = ctx.state.private(node["id"]).get("line_items", [])
        node[name] = as_list(f"/v1/checkout/sessions/{node['id']}/line_items", items)
