"""What the child processes of the fault tests do; each is started by `spawn` or as a program."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any

from guthaben.domain.commands import GrantCredit, RecordUsage, Reserve, Settle
from guthaben.domain.grants import PAID
from guthaben.errors import GuthabenError
from guthaben.store.store import Store


def attack(database_url: str, worker: int, threads: int, ready: Any, told: Any) -> None:
    """Reserve once per thread, all at the same time; tell what each of them heard."""
    store = Store(database_url)
    heard: dict[str, str] = {}
    barrier = threading.Barrier(threads)

    def one(number: int) -> None:
        barrier.wait(60)
        key = f"{worker}-{number}"
        try:
            outcome = store.execute("p", Reserve(key, 10))
        except GuthabenError as error:
            heard[key] = repr(error)
        else:
            heard[key] = "admitted" if outcome.applied else outcome.reason

    crowd = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    ready.wait(60)
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(60)
    store.close()
    told.put(heard)


def busy(database_url: str, worker: int, seconds: int, ready: Any, told: Any) -> None:
    """Write as fast as it goes, each worker a little later; tell when each turn began and ended."""
    store = Store(database_url)
    ready.wait(60)
    time.sleep(worker / 10)  # who was alone must notice that others have come
    turns: list[tuple[float, float]] = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        assert store.execute(f"p{worker}", GrantCredit(f"k{len(turns)}", PAID, 1)).applied
        turns.append((began, time.monotonic()))
    store.close()
    told.put((worker, turns))


def diary(database_url: str, round_no: int) -> None:
    """Work until killed, and write down each thing only after it was acknowledged."""
    store = Store(database_url)

    def write(line: str) -> None:
        os.write(1, f"{line}\n".encode())

    def one(thread: int) -> None:
        number = 0
        while True:
            number += 1
            name = f"{round_no}-{thread}-{number}"
            assert store.execute("p", GrantCredit(name, PAID, 1000 + number)).applied
            write(f"grant {name} {1000 + number}")
            outcome = store.execute("p", Reserve(name, 500))
            assert outcome.call is not None
            write(f"reserve {name} 500")
            cost = number % 700  # now and then beyond the reservation
            assert store.execute("p", Settle(outcome.call.call_no, cost)).applied
            write(f"settle {name} {cost}")
            assert store.execute("p", RecordUsage(name, number % 7)).applied
            write(f"usage {name} {number % 7}")

    write("ready - 0")
    for thread in range(2):
        threading.Thread(target=one, args=(thread,), daemon=True).start()
    time.sleep(60)


def interrupted(database_url: str, seconds: int) -> None:
    """Work while a signal handler raises at random moments, as Ctrl-C or a time limit does."""
    store = Store(database_url)
    armed = False

    def interrupt(_signal: int, _frame: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    told: dict[str, list[str]] = {"done": [], "failed": []}
    interrupts = number = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1.5e-3))
            outcome = store.execute("p", GrantCredit(f"k{number}", PAID, 1))
            armed = False
            told["done" if outcome.applied else "failed"].append(f"k{number}")
        except KeyboardInterrupt:
            interrupts += 1
        except GuthabenError as error:
            armed = False
            told["failed"].append(repr(error))
    signal.setitimer(signal.ITIMER_REAL, 0)
    last = threading.Thread(target=store.execute, args=("p", GrantCredit("last", PAID, 1)))
    last.start()
    last.join()
    store.close()
    print(json.dumps({**told, "interrupts": interrupts}))


if __name__ == "__main__":
    {"diary": diary, "interrupted": interrupted}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
