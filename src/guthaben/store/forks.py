"""Which process this is, without asking the system each time.

Law: after a fork the child knows at once that it is another; the number is `os.getpid()`'s.
"""

from __future__ import annotations

import os

_process = os.getpid()


def process() -> int:
    """Give the number of this process; a system call would cost microseconds."""
    return _process


def _in_child() -> None:
    global _process
    _process = os.getpid()


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_in_child)
