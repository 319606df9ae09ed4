"""The small programs behind `make`: what they say, and how they end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import bounded, ensure_browser


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_missing_browser_is_told_and_fails_only_in_ci(
    ci: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(ensure_browser, "find_chromium", lambda: None)
    monkeypatch.setattr(ensure_browser, "install_chromium", lambda: None)
    assert ensure_browser.main() == code
    assert ("MISSING" if ci else "SKIPPED") in capsys.readouterr().out


def test_a_browser_that_does_not_start_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(name: str, code: int) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nexit {code}\n")
        path.chmod(0o755)
        return path

    broken, sound = program("chromium", 1), program("google-chrome", 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHROMIUM", str(broken))
    assert ensure_browser.find_chromium() == str(sound)


def test_a_bounded_command_keeps_its_exit_code() -> None:
    assert bounded.main(["--minutes", "1", "--", sys.executable, "-c", "raise SystemExit(3)"]) == 3
    started = time.monotonic()
    assert bounded.run([sys.executable, "-c", "import time; time.sleep(60)"], 0) == 0
    assert time.monotonic() - started < 30


def test_what_it_starts_can_be_asked_to_end_even_in_the_background() -> None:
    ignored = "import signal; raise SystemExit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert subprocess.run([sys.executable, "-c", ignored], check=False).returncode == 1
        assert bounded.run([sys.executable, "-c", ignored], 1) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "and ours is as it was"
    finally:
        signal.signal(signal.SIGINT, former)
