"""A past of many calls, written in bulk: what reserve and settle would have left, without the wait.

Law: `verify` accepts it. The rows go through the store's own statements, and every transfer follows
from its predecessor's hash, so a change of the schema or of the chain needs no change here. The
calls look like an application's: the key that the engine makes itself, a model, counted tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import islice

from guthaben import Guthaben
from guthaben.domain.calls import BY_CALLER, SETTLED, Call, Operation, Usage
from guthaben.domain.commands import Reserve, body_hash
from guthaben.domain.grants import Grant
from guthaben.domain.journal import Account, Code, Transfer, link
from guthaben.domain.practice import Practice
from guthaben.store import calls, journal, practices
from guthaben.store.workspace import Workspace

GRANT_NANO_USD = 10**15
MODEL = "gpt-4o-mini"
TTL_MS = 900_000
_RESERVED_NANO_USD = 1_000_000
VERSION = 2
"""Another number, and what was kept is written anew."""
_SPREAD_S = 20 * 86_400
_ROWS_AT_ONCE = 20_000

Pair = tuple[Call, Transfer]


def name_of(number: int) -> str:
    """Name a practice of the benchmark."""
    return f"practice-{number}"


def grow(credit: Guthaben, practice_count: int, call_count: int) -> None:
    """Give so many practices credit and a past of so many calls, spread evenly over them."""
    for number in range(practice_count):
        name = name_of(number)
        credit.grant(name, GRANT_NANO_USD, key="given", kind="paid")
        share = call_count * (number + 1) // practice_count - call_count * number // practice_count
        while share > 0:
            some = min(share, _ROWS_AT_ONCE)
            credit.core.store.run(partial(_write, name, some))
            share -= some


def _write(practice_id: str, count: int, space: Workspace) -> None:
    practice = practices.load_practice(space.cursor, practice_id)
    assert practice is not None
    (grant,) = practice.grants.values()
    number, cursor = practice.practice_no, space.cursor
    made = list(islice(past(practice, grant, space.now_s - _SPREAD_S, practice.last_seq), count))
    calls.insert_calls(cursor, [(number, call) for call, _ in made])
    journal.insert_transfers(cursor, [(number, transfer) for _, transfer in made])
    used = sum(transfer.amount_nano_usd for _, transfer in made)
    left = grant._replace(free_nano_usd=grant.free_nano_usd - used)
    practices.update_grants(cursor, [(number, left)])
    last = made[-1][1]
    after = practice._replace(
        head=last.hash, last_seq=last.seq, next_call_no=practice.next_call_no + count
    )
    practices.update_counters(cursor, [after])


def past(practice: Practice, grant: Grant, begun_at_s: int, seed: int) -> Iterator[Pair]:
    """Go on with a practice's calls, each reserved and settled, one a second, without an end."""
    chance = random.Random(f"{practice.practice_id} {seed}")
    head, source = practice.head, int(grant.kind)
    target, code, operation = int(Account.USED), int(Code.SETTLE), int(Operation.RESERVE)
    body = body_hash(Reserve("", _RESERVED_NANO_USD, TTL_MS))
    first_no, first_seq = practice.next_call_no, practice.last_seq + 1
    offset = 0
    while True:
        call_no, seq, at_s = first_no + offset, first_seq + offset, begun_at_s + offset
        tokens_in, tokens_out = chance.randrange(50, 4_000), chance.randrange(10, 900)
        cost = tokens_in * 150 + tokens_out * 600
        head = link(head, seq, source, target, cost, grant.grant_no, call_no, 0, code, 0, at_s)
        transfer = Transfer(
            seq, source, target, cost, grant.grant_no, call_no, 0, code, 0, at_s, head
        )
        usage = Usage(MODEL, "", tokens_in, tokens_out, tokens_in + tokens_out)
        key = f"once-{at_s * 1000:011x}{chance.getrandbits(64):016x}"
        call = Call(
            call_no, operation, key, body, SETTLED, BY_CALLER,
            at_s * 1000, at_s * 1000 + TTL_MS, _RESERVED_NANO_USD, cost, "", 0, (),
            ended_at_s=at_s, first_seq=seq, usage=usage,
        )  # fmt: skip
        yield call, transfer
        offset += 1
