"""Owns what happens by itself when time passes: each kind of object adds its own rule here."""

from collections.abc import Callable
from typing import Final

from guthaben.sandbox import checkout, subscriptions
from guthaben.sandbox.context import Context
from guthaben.sandbox.state import State

# When the next thing is due, asked often and cheaply, and what then is done.
_RULES: Final[tuple[tuple[Callable[[State], int | None], Callable[[Context], None]], ...]] = (
    (checkout.next_due_s, checkout.expire_due),
    (subscriptions.next_due_s, subscriptions.advance),
)


def next_due_s(state: State) -> int | None:
    """Return when time will make the next thing due."""
    found = [due_s for next_due, _ in _RULES if (due_s := next_due(state)) is not None]
    return min(found, default=None)


def is_due(state: State) -> bool:
    """Tell whether time has made something due."""
    due_s = next_due_s(state)
    return due_s is not None and due_s <= state.now_s()


def run(ctx: Context) -> None:
    """Do what is due, in the caller's transaction."""
    for next_due, act in _RULES:
        due_s = next_due(ctx.state)
        if due_s is not None and due_s <= ctx.now_s():
            act(ctx)
