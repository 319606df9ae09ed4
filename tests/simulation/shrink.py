"""Makes a broken run shorter: leaves steps out as long as the same law is broken.

Law: bounded; a run that can't be made shorter within so many tries stays as it is.
"""

from __future__ import annotations

from tests.simulation.plan import draw
from tests.simulation.run import Found, run

MOST_TRIES = 60


def shrink(found: Found, most: int = MOST_TRIES) -> Found:
    """Give the shortest run of the seed that was found to break the same law."""
    numbers = [step.number for step in draw(found.seed)]
    best, kept = found, [n for n in numbers if n <= found.step or found.step >= len(numbers)]
    size = max(1, len(kept) // 2)
    tries = 0
    while size and tries < most:
        start = 0
        while start < len(kept) and tries < most:
            rest = kept[:start] + kept[start + size :]
            tries += 1
            short = run(found.seed, set(numbers) - set(rest))
            if short.law == found.law:
                best, kept = short, rest
            else:
                start += size
        size //= 2
    return best
