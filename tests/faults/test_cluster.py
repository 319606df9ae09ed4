"""A cluster on bad days: a node goes, at any moment; what was answered holds, and nobody helps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from guthaben.domain.commands import GrantCredit, Outcome, Reserve, Settle
from guthaben.domain.grants import PAID
from guthaben.errors import GuthabenError, OutcomeUnknown, StoreUnavailable
from guthaben.store import postgres_spread
from guthaben.store.postgres import connect
from guthaben.store.postgres_distribute import distribute
from guthaben.store.postgres_schema import migrate
from guthaben.store.postgres_wire import Answer
from guthaben.store.store import Store
from tests import citus
from tests.programs import until
from tests.relay import Relay
from tests.store.bank import T0_S, Clock, held, hold, pay, together
from tests.store.test_postgres import wire_of

pytestmark = pytest.mark.faults
AMOUNT = 1000


class Cluster(NamedTuple):
    """A database whose last node is behind a relay; and a practice here and one there."""

    url: str
    relay: Relay


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    host = urlsplit(citus.coordinator()).hostname
    if host not in ("127.0.0.1", "localhost"):
        pytest.skip("needs a cluster on this machine, so that a node can be cut off")
    others = [urlsplit(node) for node in citus.nodes()[1:]]
    relays = [Relay(str(other.hostname), int(other.port or 5432)) for other in others]
    name = f"guthaben_test_{os.getpid()}_relayed"
    url = citus.create(name, ports=[relay.port for relay in relays])
    with connect(url) as con:
        migrate(con, T0_S)
        distribute(con)
    yield Cluster(url, relays[-1])
    for relay in relays:
        relay.close()
    citus.drop(name)


@pytest.fixture
def store(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    cluster.relay.mend()
    monkeypatch.setenv("GUTHABEN_WRITER_LANES", "1")
    opened = Store(cluster.url, clock_ms=Clock())
    yield opened
    cluster.relay.mend()
    opened.close()


_NODE = """
    SELECT nodeport FROM pg_dist_shard_placement
    WHERE shardid = get_shard_id_for_distribution_column('credit_practice', %s)"""


def practices(store: Store, cluster: Cluster) -> tuple[str, str]:
    """Make practices until one lies here and one behind the relay; both have credit."""
    found: dict[bool, str] = {}
    number = 0
    while len(found) < 2:
        name = f"{os.urandom(4).hex()}-{number}"
        number += 1
        pay(store, name, AMOUNT)
        with connect(cluster.url) as con:
            (no,) = con.execute(
                "SELECT practice_no FROM credit_practice_name WHERE practice_id = %s", (name,)
            ).fetchone() or (0,)
            (port,) = con.execute(_NODE, (no,)).fetchone() or (0,)
        found.setdefault(port == cluster.relay.port, name)
    return found[False], found[True]


def again(store: Store, name: str, key: str, amount: int = 7) -> Outcome:
    """Ask until there is an answer, as a caller does with the same key."""

    def asked() -> Outcome | None:
        try:
            return store.execute(name, Reserve(key, amount))
        except (StoreUnavailable, OutcomeUnknown):
            return None

    return until(asked, 30, "an answer")


def recover(cluster: Cluster) -> None:
    """Do at once what the cluster does by itself every minute."""
    with connect(cluster.url) as con:
        con.execute("SELECT recover_prepared_transactions()")


def test_without_its_node_a_practice_is_refused_and_others_go_on(
    store: Store, cluster: Cluster
) -> None:
    here, there = practices(store, cluster)
    call_no = hold(store, there, 5, "before")
    cluster.relay.cut()
    with pytest.raises(StoreUnavailable, match=r"connection"):
        store.execute(there, Reserve("a", 7))
    assert store.execute(here, Reserve("a", 7)).applied
    answers = together(store, [(there, Reserve("b", 1)), (here, Reserve("b", 1))] * 2)
    assert [type(answer) for answer in answers[::2]] == [StoreUnavailable] * 2
    assert [answer.ok for answer in answers[1::2]] == [True] * 2, "they were folded with others"
    with pytest.raises(GuthabenError):
        store.execute(there, Settle(call_no, 5))
    cluster.relay.mend()
    told = again(store, there, "a")
    assert (told.ok, told.replayed) == (True, False)
    assert store.execute(there, Settle(call_no, 5)).applied
    assert (held(store, here), held(store, there)) == (8, 7)
    assert store.verify().problems == []


def test_a_strangers_lock_on_a_node_is_waited_for_no_longer_than_anywhere(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is that of a transaction which a node prepared and nobody has settled yet."""
    here, there = practices(store, cluster)
    monkeypatch.setattr(postgres_spread, "_PATIENCE", "SET LOCAL lock_timeout = 300")
    with connect(cluster.url) as con:
        con.execute("BEGIN")
        con.execute(
            "UPDATE credit_practice SET status = status WHERE practice_no = ("
            "SELECT practice_no FROM credit_practice_name WHERE practice_id = %s)",
            (there,),
        )
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            store.execute(there, Reserve("a", 7))
        assert store.execute(here, Reserve("a", 7)).applied
        con.execute("ROLLBACK")
    assert store.execute(there, Reserve("a", 7)).applied
    assert store.verify().problems == []


def at_commit(store: Store, monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    """Do something right before the writer's next COMMIT."""
    wire = wire_of(store)
    flush = wire.flush
    done: list[bool] = []

    def flushing() -> list[Answer]:
        if not done and any(statement.sql == b"COMMIT" for statement, *_rest in wire._queue):
            done.append(True)
            what()
        return flush()

    monkeypatch.setattr(wire, "flush", flushing)


@pytest.mark.parametrize("heard", [True, False])
def test_a_node_that_goes_at_commit_leaves_the_outcome_unknown(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """Whether it heard of COMMIT or not: the key tells."""
    _here, there = practices(store, cluster)
    at_commit(store, monkeypatch, cluster.relay.swallow if heard else cluster.relay.cut)
    with pytest.raises(OutcomeUnknown, match="COMMIT"):
        store.execute(there, Reserve("a", 7))
    cluster.relay.mend()
    told = again(store, there, "a")
    assert (told.ok, told.replayed) == (True, heard)
    assert held(store, there) == 7
    assert store.verify().problems == []


@pytest.mark.parametrize("heard", [True, False])
def test_a_batch_over_two_nodes_is_done_on_both_or_on_none(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    here, there = practices(store, cluster)
    at_commit(store, monkeypatch, cluster.relay.swallow if heard else cluster.relay.cut)
    with pytest.raises(OutcomeUnknown, match="COMMIT"):
        store.run(lambda space: [space.apply(n, Reserve("a", 7)) for n in (here, there)])
    cluster.relay.mend()
    recover(cluster)  # what the node prepared and nobody committed
    assert (held(store, here), held(store, there)) == (0, 0)
    for name in (here, there):
        assert not again(store, name, "a").replayed
    assert store.verify().problems == []


def test_what_is_here_and_on_a_node_is_done_on_both_or_on_none(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new practice has its name here and its row there."""
    names = [f"new-{os.urandom(4).hex()}-{number}" for number in range(12)]
    for name in names:
        with monkeypatch.context() as patched, contextlib.suppress(OutcomeUnknown):
            at_commit(store, patched, cluster.relay.swallow)
            store.execute(name, GrantCredit("given", PAID, 5))
        cluster.relay.mend()
        until(lambda: _answers(store), 30, "the node")
    recover(cluster)
    for name in names:
        assert store.execute(name, GrantCredit("given", PAID, 5)).ok
    with connect(cluster.url) as con:
        torn = con.execute(
            "SELECT (SELECT COUNT(*) FROM credit_practice_name),"
            " (SELECT COUNT(*) FROM credit_practice)"
        ).fetchone()
    assert torn is not None
    assert torn[0] == torn[1]
    assert store.verify().problems == []


def _answers(store: Store) -> bool:
    try:
        store.run(lambda space: space.cursor.execute("SELECT COUNT(*) FROM credit_practice"))
    except GuthabenError:
        return False
    return True
