"""Another program on the same database: 16 threads that make AI calls through the Python interface.

Run as `python -m tests.story.workers URL PRACTICE CALLS COST_NANO_USD`; prints what it did as JSON.
"""

import json
import sys
import threading
from collections import Counter

from guthaben import Guthaben

THREADS = 16


def main(url: str, practice_id: str, calls: int, cost_nano_usd: int) -> None:
    """Make the calls and print how they ended."""
    ends: Counter[str] = Counter()
    lock = threading.Lock()
    numbers = iter(range(calls))

    def next_number() -> int | None:
        with lock:
            return next(numbers, None)

    def work(credit: Guthaben) -> None:
        while (number := next_number()) is not None:
            key = f"worker-{number}"
            with credit.reserve(practice_id, cost_nano_usd + 1_000_000, key=key) as call:
                call.settle(cost_nano_usd, model="demo-model", input_tokens=10, output_tokens=5)
            with lock:
                ends[call.status] += 1

    with Guthaben.open(url) as credit:
        threads = [threading.Thread(target=work, args=(credit,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
