"""Stripe's published schemas as JSON Schema, where they are at hand."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SPEC = Path(__file__).resolve().parents[2].parent / "shared" / "stripe" / "spec_trimmed.json"


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
