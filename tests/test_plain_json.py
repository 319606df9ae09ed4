"""How deep JSON may be nested: the same on every Python, wherever a body is read."""

from __future__ import annotations

import pytest

from guthaben.errors import InvalidInput
from guthaben.plain_json import MOST_NESTED, PlainJson, UnclearJson
from guthaben.services.legacy import input as legacy_input
from guthaben.web.gateway import bodies
from guthaben.web.problems import Problem

JSON = PlainJson(most_digits=9)
TOO_DEEP = (MOST_NESTED + 1, 500, 900, 20_000)


def lists(levels: int) -> bytes:
    """Give an object with lists in it, so many levels in all."""
    return b'{"a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def objects(levels: int) -> bytes:
    """Give objects in each other."""
    return b'{"a": ' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("form", [lists, objects])
def test_so_deep_and_no_deeper(form) -> None:
    assert JSON.object(form(MOST_NESTED))
    for levels in TOO_DEEP:
        with pytest.raises(UnclearJson, match="nested"):
            JSON.object(form(levels))


@pytest.mark.parametrize("form", [lists, objects])
async def test_so_deep_for_the_gateway_and_for_the_old_routes_too(form) -> None:
    assert await bodies.parsed(form(MOST_NESTED))
    assert legacy_input.read_object(form(MOST_NESTED))
    for levels in TOO_DEEP:
        with pytest.raises(Problem) as refused:
            await bodies.parsed(form(levels))
        assert "nested" in refused.value.detail
        with pytest.raises(InvalidInput):
            legacy_input.read_object(form(levels))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": [' + b"[]," * 500 + b"{}]}",
        b'{"a": "' + b"[{" * 500 + b'"}',
        b'{"a": "' + b"]" * 500 + b'", "b": {"c": [{"d": 1}]}}',
    ],
    ids=["side by side", "in a text", "closed in a text"],
)
async def test_what_is_wide_or_only_text_is_not_deep(raw: bytes) -> None:
    assert JSON.object(raw) == await bodies.parsed(raw) == legacy_input.read_object(raw)
