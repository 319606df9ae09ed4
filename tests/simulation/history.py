"""The history of a run: what happened, line by line, the same bytes for the same seed."""

from __future__ import annotations

from hashlib import sha256


class Violation(BaseException):
    """An invariant was broken. No exception of the engine's kind, so that nothing swallows it."""

    def __init__(self, law: str, detail: str) -> None:
        super().__init__(f"{law}: {detail}")
        self.law = law
        self.detail = detail


class History:
    """Lines in the order in which they happened."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Write one line."""
        self.lines.append(line)

    def digest(self) -> str:
        """Sum the history up, to compare two runs."""
        return sha256("\n".join(self.lines).encode()).hexdigest()

    def text(self) -> str:
        """Give the whole history."""
        return "\n".join(self.lines)
