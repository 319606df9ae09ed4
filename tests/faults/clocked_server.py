"""The command line with a clock that stands until it is moved: its time is eight bytes in a file.

Run as a script with CLOCK_FILE and what follows `guthaben`; everything else comes from the
environment.
"""

import functools
import mmap
import struct
import sys
from pathlib import Path

from guthaben import cli
from guthaben.web import app


def main(clock: Path) -> None:
    """Run the command; what it serves looks at this clock."""
    with clock.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
        app.open_services = functools.partial(
            app.open_services, clock_ms=lambda: int(struct.unpack("<q", mapped[:8])[0])
        )
        cli.main()


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
