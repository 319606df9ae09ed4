"""What a body of the Cycles protocol may not be: unclear, endless, or a text that nobody keeps."""

import pytest

from guthaben.web.cycles.errors import Denial
from guthaben.web.cycles.reading import canonical, decode


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": [{"b": 1, "b": 2}]}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1' + b"0" * 40 + b"}", "digits"),
        (b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "nested"),
        (b"\xff", "UTF-8"),
        (b"", "not JSON"),
        (b"[]", "object"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": "\\ud800"}', "half of a character"),
    ],
)
def test_a_body_that_is_not_plain_is_refused(raw: bytes, part: str) -> None:
    with pytest.raises(Denial) as refused:
        decode(raw)
    assert (refused.value.code, refused.value.status) == ("INVALID_REQUEST", 400)
    assert part in refused.value.message


def test_a_plain_body_is_read_with_its_fractions() -> None:
    raw = '{"a": 0.5, "b": 9223372036854775807, "c": "\\ud83d\\ude00 Zürich"}'.encode()
    assert decode(raw) == {"a": 0.5, "b": 2**63 - 1, "c": "😀 Zürich"}


def test_equal_values_are_written_alike() -> None:
    assert canonical(decode(b'{"b": 1, "a": {"d": 2, "c": "\\u00fc"}}')) == (
        canonical(decode('{ "a": {"c": "ü", "d": 2}, "b": 1 }'.encode()))
    )


def test_a_fraction_without_end_is_never_kept() -> None:
    with pytest.raises(Denial, match="out of range"):
        canonical(decode(b'{"a": 1e999}'))
