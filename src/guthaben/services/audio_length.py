"""The length of a recording, read from the file itself before it is sent.

Law: the length is never below what the bytes can hold at the format's highest rate, so a header
that lies gains little. A file that can't be read is refused (`unreadable_audio`), or bounded by its
bytes where the caller says so. Reads wav, mp3, flac, ogg, opus, m4a, mp4, aiff, wma and webm.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any, BinaryIO, Final

from guthaben.domain.metering import MAX_AUDIO_US
from guthaben.errors import ConfigError, InvalidInput

LEAST_BYTES_PER_S: Final = 500
"""Speech is not stored in less: the bound of a file whose length can't be read."""
MOST_BYTES_PER_S: Final = 64_000
"""Compressed sound is not stored in more."""
AUDIO_TOKENS_PER_S: Final = 34
"""Providers count 10 to 32 tokens a second."""
_US_PER_S: Final = 1_000_000


def spoken_tokens(audio_us: int) -> int:
    """Tell how many tokens so much sound is at most."""
    return -(-audio_us * AUDIO_TOKENS_PER_S // _US_PER_S) + 1


def audio_length_us(data: bytes | BinaryIO, *, least_bytes_per_s: int = 0) -> int:
    """Read a recording's length in microseconds, rounded up.

    Without a readable length: the file's bytes by `least_bytes_per_s`, or `InvalidInput`
    (`unreadable_audio`) where that is 0. A file object is left at its beginning.
    """
    file = io.BytesIO(data) if isinstance(data, bytes | bytearray) else data
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    is_webm = file.read(4) == _EBML
    file.seek(0)
    length_us = _webm_us(file.read()) if is_webm else _tagged_us(file, size)
    file.seek(0)
    if length_us is not None and 0 < length_us <= MAX_AUDIO_US:
        return length_us
    if least_bytes_per_s > 0 and size > 0:
        return min(MAX_AUDIO_US, -(-size * _US_PER_S // least_bytes_per_s))
    raise InvalidInput(
        "The recording's length can't be read. Send it as wav, mp3, flac, ogg, m4a or webm.",
        field="file",
        reason="unreadable_audio",
    )


def _tagged_us(file: BinaryIO, size: int) -> int | None:
    try:
        tinytag: Any = import_module("tinytag")
    except ImportError as error:
        raise ConfigError(
            "Reading a recording's length needs tinytag: pip install 'guthaben[prices]'"
        ) from error
    try:
        tag = tinytag.TinyTag.get(file_obj=file, tags=False, duration=True)
    except (tinytag.TinyTagException, OSError, ArithmeticError, ValueError):
        return None
    by_bytes_us = _wave_us(tag, size) if type(tag).__name__ == "_Wave" else 0
    if by_bytes_us:
        return by_bytes_us
    if tag.duration is None or not math.isfinite(tag.duration) or tag.duration <= 0:
        return None
    told_us: int = math.ceil(tag.duration * _US_PER_S)
    if type(tag).__name__ in ("_Flac", "_Aiff"):
        return told_us
    return max(told_us, size * _US_PER_S // MOST_BYTES_PER_S)


def _wave_us(tag: Any, size: int) -> int:
    """Compute the length of a wav from its bytes: streams carry no length, and headers may lie."""
    bits_per_s: int = (tag.samplerate or 0) * (tag.channels or 0) * (tag.bitdepth or 0)
    return -(-size * 8 * _US_PER_S // bits_per_s) if bits_per_s > 0 else 0


# ---------------------------------------------------------------- webm

_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT, _INFO, _CLUSTER, _GROUP = 0x18538067, 0x1549A966, 0x1F43B675, 0xA0
_SCALE, _TIMECODE, _SIMPLE, _BLOCK = 0x2AD7B1, 0xE7, 0xA3, 0xA1
_OPENED: Final = frozenset({_SEGMENT, _INFO, _CLUSTER, _GROUP})
_LAST_BLOCK_US: Final = 120_000
_MOST_ELEMENTS: Final = 400_000
"""Hours of sound; more is no recording but a way to keep us busy."""


def _webm_us(data: bytes) -> int | None:
    """Find the last moment of a webm: recorders of browsers write no length into the header."""
    scale, cluster, last = 1_000_000, 0, -1
    for number, (name, start, end) in enumerate(_elements(data)):
        if number > _MOST_ELEMENTS:
            return None
        if name == _SCALE:
            scale = int.from_bytes(data[start:end], "big")
        elif name == _TIMECODE:
            cluster = int.from_bytes(data[start:end], "big")
        elif name in (_SIMPLE, _BLOCK):
            _track, after = _number(data, start, keep=False)
            moment = int.from_bytes(data[after : after + 2], "big", signed=True)
            last = max(last, cluster + moment)
    if last < 0:
        return None
    told_us = last * scale // 1000 + _LAST_BLOCK_US
    return max(told_us, len(data) * _US_PER_S // MOST_BYTES_PER_S)


def _elements(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Walk through the elements; containers are entered, so that their sizes don't matter."""
    at = 0
    while at < len(data):
        name, at = _number(data, at, keep=True)
        size, start = _number(data, at, keep=False)
        if name in _OPENED:
            at = start
            continue
        at = start + size
        yield name, start, min(at, len(data))


def _number(data: bytes, at: int, *, keep: bool) -> tuple[int, int]:
    """Read one number of variable length, with its marker or without; give where it ends."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length() if first else 8
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep else value & ((1 << (7 * length)) - 1)), at + length
