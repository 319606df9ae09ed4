"""Stripe's published schemas as JSON Schema, and its newer samples, where they are at hand."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SPEC = Path(__file__).resolve().parents[2].parent / "shared" / "stripe" / "spec_trimmed.json"
SAMPLES = SPEC.with_name("fixtures3_2026-08.json")


def convert(node: Any) -> Any:
    """Turn OpenAPI 3.0's `nullable` into a union with null, everywhere."""
    if isinstance(node, list):
        return [convert(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("nullable") is True:
        rest = {key: value for key, value in node.items() if key != "nullable"}
        return {"anyOf": [{"type": "null"}, convert(rest)]}
    return {key: convert(value) for key, value in node.items()}


@cache
def _components() -> dict[str, Any]:
    schemas = json.loads(SPEC.read_text())["components"]["schemas"]
    # A property may itself be called "nullable": only schemas are converted, name by name.
    return {name: convert(schema) for name, schema in schemas.items()}


def known(name: str) -> bool:
    return name in _components()


@cache
def _validator(name: str) -> Draft202012Validator:
    root = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _components()}}
    return Draft202012Validator(root)


def faults_of(name: str, value: Any) -> list[str]:
    """Return what is wrong with a value; nothing if it is as Stripe's."""
    found = sorted(_validator(name).iter_errors(value), key=lambda e: list(map(str, e.path)))
    return [f"{name}: {'/'.join(map(str, e.path))}: {e.message[:200]}" for e in found]


@cache
def _samples() -> dict[str, Any]:
    return dict(json.loads(SAMPLES.read_text())["resources"])


def has_sample(name: str) -> bool:
    return name in _samples()


def unlike_sample(name: str, value: dict[str, Any]) -> list[str]:
    """Return how a value's fields differ in kind from those of Stripe's own sample."""
    found = []
    for field, expected in _samples()[name].items():
        if field not in value:
            found.append(f"{name}: {field} is missing")
            continue
        given = value[field]
        either_empty = expected is None or given is None
        # An id may stand for the object, and the other way round.
        reference = {type(given), type(expected)} == {str, dict}
        if not either_empty and not reference and type(given) is not type(expected):
            found.append(f"{name}: {field} is a {type(given).__name__}")
    return found
