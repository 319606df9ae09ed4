"""Planted bugs: mistakes that others have made, put into the engine as it is imported.

Law: the source on disk is never touched. A bug is a list of edits, each a text that stands exactly
once in its file; they take effect in the process that calls `plant` before the engine is imported.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).absolute().parents[2]
LIST = Path(__file__).with_name("bugs.toml")


class Edit(NamedTuple):
    """`old` stands exactly once in `file` and becomes `new`."""

    file: str
    old: str
    new: str


class Bug(NamedTuple):
    """One mistake, and who made it or what it costs."""

    name: str
    why: str
    edits: tuple[Edit, ...]


def load(path: Path = LIST) -> dict[str, Bug]:
    """Read the list; a wrong or missing field, or a name used twice, raises."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["bug"]
    bugs = [
        Bug(row["name"], row["why"], tuple(Edit(**edit) for edit in row["edits"])) for row in rows
    ]
    found = {bug.name: bug for bug in bugs}
    if len(found) != len(bugs) or not all(bug.why and bug.edits for bug in bugs):
        raise ValueError("each bug needs a name of its own, a reason and an edit")
    return found


def applied(edit: Edit, text: str) -> str:
    """Make an edit in a file's text; raises `ValueError` if it does not fit."""
    if text.count(edit.old) != 1 or edit.old == edit.new:
        raise ValueError(f"{edit.file}: the old text stands {text.count(edit.old)} times in it")
    return text.replace(edit.old, edit.new)


class _Loader(SourceFileLoader):
    edits: Sequence[Edit] = ()

    def get_code(self, fullname: str) -> CodeType | None:
        text = Path(self.path).read_text(encoding="utf-8")
        for edit in self.edits:
            text = applied(edit, text)
        return compile(text, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, bug: Bug) -> None:
        self._edits: dict[str, list[Edit]] = {}
        for edit in bug.edits:
            self._edits.setdefault(str(ROOT / edit.file), []).append(edit)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("guthaben"):
            return None
        spec: Any = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin in self._edits:
            loader = _Loader(fullname, spec.origin)
            loader.edits = self._edits.pop(spec.origin)
            spec.loader, spec.cached = loader, None
        return spec

    @property
    def left(self) -> list[str]:
        """Files whose edits have not been made."""
        return sorted(self._edits)


_planted: list[_Finder] = []


def plant(bug: Bug) -> None:
    """Let the engine be imported with this bug; nothing of it may be imported yet."""
    if any(name == "guthaben" or name.startswith("guthaben.") for name in sys.modules):
        raise RuntimeError("the engine is imported already, without the bug")
    finder = _Finder(bug)
    sys.meta_path.insert(0, finder)
    _planted.append(finder)


def require_planted() -> None:
    """Raise unless every edit has taken effect: a bug that is not there can't be found."""
    left = [file for finder in _planted for file in finder.left]
    if left:
        raise RuntimeError(f"never imported, so the bug is not there: {left}")
