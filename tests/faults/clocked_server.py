"""A server whose clock stands still until it is moved: its time is eight bytes in a file.

Run as a script with PORT and CLOCK_FILE; everything else comes from the environment.
"""

import mmap
import struct
import sys
from pathlib import Path

from guthaben.web import logs, server
from guthaben.web.app import create_app, open_services


def main(port: int, clock: Path) -> None:
    """Serve until a signal comes."""
    logs.configure("WARNING")
    with clock.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
        services = open_services(clock_ms=lambda: int(struct.unpack("<q", mapped[:8])[0]))
        try:
            server.run(create_app(services), server.take_address("127.0.0.1", port), lambda: None)
        finally:
            services.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
