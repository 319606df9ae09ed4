"""The length of recordings: read from the file, never below what its bytes hold, or refused."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.errors import ConfigError, InvalidInput
from guthaben.services import audio_length
from guthaben.services.audio_length import (
    LEAST_BYTES_PER_S,
    MOST_BYTES_PER_S,
    audio_length_us,
    spoken_tokens,
)
from tests.services_prices import recordings

S = 1_000_000


@pytest.mark.parametrize("seconds", [1, 7, 61])
@pytest.mark.parametrize(
    "make",
    [
        recordings.wav, recordings.mp3, recordings.flac, recordings.opus, recordings.m4a,
        recordings.webm,
    ],
    ids=lambda make: make.__name__,
)  # fmt: skip
def test_lengths(make: Callable[[int], bytes], seconds: int) -> None:
    found = audio_length_us(make(seconds))
    assert seconds * S <= found <= seconds * S + 150_000
    file = io.BytesIO(make(seconds))
    assert audio_length_us(file) == found
    assert file.tell() == 0


def test_a_webm_may_count_in_other_steps() -> None:
    assert 3 * S <= audio_length_us(recordings.webm(3, 500_000)) <= 3 * S + 150_000


def test_a_wav_is_measured_by_its_bytes() -> None:
    made = bytearray(recordings.wav(10))
    at = made.index(b"data") + 4
    for lie in (0, 100, 0xFFFFFFFF):
        made[at : at + 4] = struct.pack("<I", lie)
        assert 10 * S <= audio_length_us(bytes(made)) <= 10 * S + 150_000


def test_a_header_that_lies_gains_little() -> None:
    padded = recordings.m4a(1) + recordings._box(b"free", b"\0" * MOST_BYTES_PER_S * 30)
    assert audio_length_us(padded) >= 30 * S
    assert audio_length_us(recordings.webm(1) + b"\0" * MOST_BYTES_PER_S * 30) >= 30 * S


@pytest.mark.parametrize(
    "data",
    [
        b"", b"RIFF", b"not a recording" * 100, b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3" * 50,
        recordings.flac(0), recordings.opus(0)[:40], recordings.webm(0),
        recordings.webm(1) + b"\xec\x80" * 400_000,
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="wav, mp3") as refused:
        audio_length_us(data)
    assert refused.value.reason == "unreadable_audio"


def test_what_can_not_be_read_may_be_bounded_by_its_bytes() -> None:
    assert audio_length_us(b"x" * 1001, least_bytes_per_s=LEAST_BYTES_PER_S) == 2_002_000
    with pytest.raises(InvalidInput):
        audio_length_us(b"", least_bytes_per_s=LEAST_BYTES_PER_S)


MAGIC = [
    b"", b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"OggS", b"ID3",
    b"\xff\xfb\x50\xc4", b"\0\0\0\x18ftypM4A ",
]  # fmt: skip


@given(data=st.binary(max_size=300), magic=st.sampled_from(MAGIC))
def test_whatever_the_bytes_there_is_a_length_or_a_refusal(data: bytes, magic: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert audio_length_us(magic + data) > 0


def test_without_the_package_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> Any:
        raise ImportError

    monkeypatch.setattr(audio_length, "import_module", missing)
    with pytest.raises(ConfigError, match="guthaben\\[prices\\]"):
        audio_length_us(recordings.wav(1))
    assert audio_length_us(recordings.webm(1)) > S


def test_tokens_of_sound() -> None:
    assert [spoken_tokens(us) for us in (0, 1, S)] == [1, 2, 35]
