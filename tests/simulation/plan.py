"""The plan of a run: its steps, drawn from the seed before anything happens.

Law: each step draws from a source of its own, so that a step left out changes no other step's
decisions; that is what makes a failing plan shorter and still the same failure.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from tests.simulation import outside, practices
from tests.simulation.clock import until_next_month_s

ACTIONS = practices.ACTIONS | outside.ACTIONS
STEPS = 100
TO_MONTH_END = -1


class Step(NamedTuple):
    """One step: let time pass, let somebody do something, give some turns."""

    number: int
    pause_ms: int
    action: str
    turns: int


def draw(seed: int, steps: int = STEPS) -> list[Step]:
    """Draw a plan. Each seed likes some actions more than others, and leaves some out."""
    rng = Random(f"{seed}/plan")
    weights = {name: weight * rng.choice((0, 1, 1, 2, 4)) for name, (weight, _) in ACTIONS.items()}
    for name in ("pay", "deliver", "inbox", "job", "reserve", "use", "switch_on"):
        weights[name] = max(weights[name], ACTIONS[name][0])
    names = list(weights)
    chances = [weights[name] for name in names]
    tempo = rng.choice(_TEMPI)
    return [
        Step(
            number,
            _pause_ms(rng, tempo),
            rng.choices(names, chances)[0],
            rng.choice((1, 2, 4, 8, 16)),
        )
        for number in range(steps)
    ]


_MS = (0, 1, 20, 900, 4_000)
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
# How likely a step follows at once, after seconds to minutes, after hours, after days, at the end
# of the month: a busy hour, a busy day, a month.
_TEMPI = ((55, 20, 18, 5, 2), (45, 12, 30, 11, 2), (32, 8, 33, 24, 3))


def _pause_ms(rng: Random, tempo: tuple[int, ...]) -> int:
    match rng.choices(range(len(tempo)), tempo)[0]:
        case 0:
            return rng.choice(_MS)
        case 1:
            return rng.randrange(5_000, 5 * _MINUTE_MS)
        case 2:
            return rng.randrange(5 * _MINUTE_MS, 30 * _HOUR_MS)
        case 3:
            return rng.randrange(30 * _HOUR_MS, 9 * 24 * _HOUR_MS)
        case _:
            return TO_MONTH_END


def length_ms(step: Step, now_ms: int) -> int:
    """Tell how long a step waits first: to the last second of Zurich's month, or what it says."""
    if step.pause_ms != TO_MONTH_END:
        return step.pause_ms
    return max(0, until_next_month_s(now_ms // 1000) - 1) * 1000
