"""Counting tokens before a call, without a network.

Law: a count is exact or too high, never too low. A tokenizer is used only for models that are known
to have it and only where its tables are on this machine: the package `bpe-openai` carries them, and
an encoding of tiktoken that the host has loaded is used; we never let it download one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

TokenCount = Callable[[str], int]
"""Counts a text's tokens; must never be too low."""

_ENCODINGS: Final = (
    ("o200k_base", ("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "chatgpt-4o", "o1", "o3", "o4-mini")),
    ("cl100k_base", ("gpt-4", "gpt-3.5-turbo", "text-embedding-3", "text-embedding-ada-002")),
)
_LONGEST_PIECE: Final = 100_000


def counted(count: TokenCount | None, text: str) -> int:
    """Count a text with a tokenizer, or by its bytes without one."""
    return count(text) if count is not None else len(text.encode("utf-8", "surrogatepass"))


def offline_counter(model: str) -> TokenCount | None:
    """Give the exact counter of a model's tokens, None where none is at hand."""
    name = _encoding_of(model.lower())
    if name is None:
        return None
    encoding = _carried(name) or _loaded(name)
    return None if encoding is None else _bounded(encoding)


def _encoding_of(model: str) -> str | None:
    for name, prefixes in _ENCODINGS:
        if model.startswith(prefixes):
            return name
    return None


_CARRIER: Final = "bpe_openai"


@cache
def _is_there() -> bool:
    # Asked once: looking for a package that isn't there costs more than counting.
    return find_spec(_CARRIER) is not None


def _carried(name: str) -> Callable[[str], int] | None:
    if _CARRIER not in sys.modules and not _is_there():
        return None
    try:
        encoding: Any = import_module(_CARRIER).get_encoding(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return lambda text: len(encoding.encode_ordinary(text))


def _loaded(name: str) -> Callable[[str], int] | None:
    registry = sys.modules.get("tiktoken.registry")
    encoding = getattr(registry, "ENCODINGS", {}).get(name)
    return None if encoding is None else lambda text: len(encoding.encode_ordinary(text))


def _bounded(count: Callable[[str], int]) -> TokenCount:
    """Count very long texts by their bytes: some tokenizers take quadratic time."""

    def bounded(text: str) -> int:
        size = len(text.encode("utf-8", "surrogatepass"))
        return size if size > _LONGEST_PIECE else min(size, count(text))

    return bounded
