"""Find a Chromium for the browser tests, or install one where that is allowed.

`find_chromium` is what the tests use. Run as a program it also tries to install: Debian's package
if it may (root and apt-get), else playwright's own build. Without success it says aloud that the
browser tests will be skipped; where CI is set it fails instead, because there they must run.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PLAYWRIGHT_FOLDERS = ("~/.cache/ms-playwright", "~/Library/Caches/ms-playwright")
PLAYWRIGHT_PATTERNS = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
    "chromium_headless_shell-*/*/*headless*shell",
)
APT_UPDATE_S = 120
INSTALL_S = 240


def in_ci() -> bool:
    """Say whether this is continuous integration, where a missing browser is a failure."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def find_chromium() -> str | None:
    """Return the path of a Chromium that starts, or None; $CHROMIUM comes first."""
    return next((path for path in _candidates() if _starts(path)), None)


def _candidates() -> Iterator[str]:
    if chosen := os.environ.get("CHROMIUM"):
        yield shutil.which(chosen) or chosen
    for name in NAMES:
        if path := shutil.which(name):
            yield path
    yield from APPLICATIONS
    for folder in (os.environ.get("PLAYWRIGHT_BROWSERS_PATH"), *PLAYWRIGHT_FOLDERS):
        if folder:
            for pattern in PLAYWRIGHT_PATTERNS:
                yield from map(str, sorted(Path(folder).expanduser().glob(pattern), reverse=True))


def _starts(path: str) -> bool:
    # Some systems put a script there that only says where to get the real one.
    return os.access(path, os.X_OK) and _run([path, "--version"], 30)


def _run(command: list[str], timeout_s: int) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def install_chromium() -> None:
    """Try each allowed way to install one; whether it worked is for `find_chromium` to say."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _say("installing Debian's chromium ...")
        _run(["apt-get", "-qq", "update"], APT_UPDATE_S)
        _run(["apt-get", "-qq", "install", "--no-install-recommends", "-y", "chromium"], INSTALL_S)
    if not find_chromium():
        _say("downloading playwright's chromium ...")
        _run([sys.executable, "-m", "playwright", "install", "chromium"], INSTALL_S)


def _say(text: str) -> None:
    print(f"browser: {text}", flush=True)


def main() -> int:
    """Make sure that a Chromium is there; return 1 only where the browser tests must run."""
    path = find_chromium()
    if path is None:
        install_chromium()
        path = find_chromium()
    if path:
        _say(path)
        return 0
    if in_ci():
        _say("MISSING, and the browser tests must run here (CI is set): install chromium")
        return 1
    _say("NONE FOUND: the browser tests will be SKIPPED (install chromium, or set CHROMIUM)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
