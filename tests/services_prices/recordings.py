"""Recordings made byte by byte: silence of a known length in the usual formats."""

from __future__ import annotations

import io
import struct
import wave


def wav(seconds: int, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes(b"\0\0" * rate * seconds)
    return file.getvalue()


def mp3(seconds: int) -> bytes:
    """Frames of 64 kbit/s, 44.1 kHz, mono: 1,152 samples in 208 bytes."""
    frame = bytes([0xFF, 0xFB, 0x50, 0xC4]) + b"\0" * 204
    return frame * (seconds * 44_100 // 1152 + 1)


def flac(seconds: int, rate: int = 16_000) -> bytes:
    samples = seconds * rate
    packed = (rate << 44) | (0 << 41) | (15 << 36) | samples
    info = struct.pack(">HH", 4096, 4096) + b"\0" * 6 + packed.to_bytes(8, "big") + b"\0" * 16
    return b"fLaC" + bytes([0x80]) + len(info).to_bytes(3, "big") + info + b"\0" * 500


def opus(seconds: int) -> bytes:
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 4) + b"test" + struct.pack("<I", 0)
    pages = [_page(0, 2, 0, head), _page(1, 0, 0, tags)]
    pages.append(_page(2, 4, seconds * 48_000, b"\0" * 200))
    return b"".join(pages)


def _page(number: int, flags: int, granule: int, body: bytes) -> bytes:
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, 7, number, 0, 1)
    return head + bytes([len(body)]) + body


def m4a(seconds: int) -> bytes:
    movie = struct.pack(">IIIII", 0, 0, 0, 1000, seconds * 1000) + b"\0" * 80
    return _box(b"ftyp", b"M4A \0\0\0\0M4A ") + _box(b"moov", _box(b"mvhd", movie))


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def webm(seconds: int, scale: int = 1_000_000) -> bytes:
    """As a browser records: no length, containers of unknown size, a block every 60 ms."""
    head = _element(0x1A45DFA3, _element(0x4282, b"webm"))
    info = _element(0x1549A966, _element(0x2AD7B1, scale.to_bytes(3, "big")))
    clusters = b""
    for second in range(seconds):
        ms = second * 1000 * 1_000_000 // scale
        step = 60 * 1_000_000 // scale
        blocks = [
            _element(0xA3, b"\x81" + (index * step).to_bytes(2, "big") + b"\x80" + b"\0" * 40)
            for index in range(16)
        ]
        body = _element(0xE7, ms.to_bytes(4, "big")) + b"".join(blocks)
        clusters += (0x1F43B675).to_bytes(4, "big") + b"\x01" + b"\xff" * 7 + body
    return head + (0x18538067).to_bytes(4, "big") + b"\x01" + b"\xff" * 7 + info + clusters


def _element(name: int, body: bytes) -> bytes:
    size = (0x4000 | len(body)).to_bytes(2, "big")
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + size + body
