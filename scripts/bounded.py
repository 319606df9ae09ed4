"""Run a command, and end it when its time is up.

A soak test has no natural end: reaching the bound is a success. The command itself must end at its
first failure (pytest -x), or a failure would hide behind the bound.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence


def run(command: Sequence[str], minutes: int) -> int:
    """Return the command's exit code, or 0 if it had to be ended because its time was up."""
    # In the background of a script we may have been started so that we ignore it, and what we
    # start inherits that: it could not be asked to end, only killed.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _bounded(subprocess.Popen(command, start_new_session=True), minutes)
    finally:
        signal.signal(signal.SIGINT, former)


def _bounded(process: subprocess.Popen[bytes], minutes: int) -> int:
    try:
        return process.wait(timeout=minutes * 60)
    except subprocess.TimeoutExpired:
        _end_group(process)
        print(f"ended after {minutes} minutes, as asked")
        return 0
    except KeyboardInterrupt:
        _end_group(process)
        return 130


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # The tests' own child processes are in the same session and must not outlive it.
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse `--minutes N -- command ...` and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    return run(options.command, options.minutes)


if __name__ == "__main__":
    sys.exit(main())
