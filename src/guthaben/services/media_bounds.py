"""Upper bounds of what is heard, spoken or drawn: transcriptions, speech, images.

Law: as in `request_bounds`. Figures that providers don't guarantee (tokens of a second of sound, of
a picture) are theirs as measured, rounded up generously; the gate still books the real cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from guthaben.domain.bounds import Limit, input_tokens, output_tokens
from guthaben.domain.pricing import RateCard
from guthaben.services.audio_length import spoken_tokens
from guthaben.services.request_bounds import IMAGE_TOKENS, PER_REQUEST, Request, number_of
from guthaben.services.token_count import TokenCount, counted

SPEECH_TOKENS_PER_BYTE: Final = 20
_SPEECH_LEAST: Final = 500
_PIXELS_PER_TOKEN: Final = 200
_IMAGE_LEAST: Final = 1_000
_DRAFT_TOKENS: Final = 200
_IMAGE_SIDE: Final = 2_048


def transcription(
    card: RateCard, audio_us: int, *, prompt: str = "", count: TokenCount | None = None
) -> Request:
    """Bound a transcription by the length of its audio; `audio_length_us` reads it."""
    if card.prices("input_audio_us"):
        return Request((Limit(("input_audio_us", "audio_us"), audio_us),))
    text = counted(count, prompt) + PER_REQUEST
    heard = spoken_tokens(audio_us) + text
    # Nobody speaks faster than sound is counted; the answer is text.
    return Request((input_tokens(heard, ("audio",)), output_tokens(heard)))


def speech(card: RateCard, body: Mapping[str, Any]) -> Request:
    """Bound spoken text: by its characters, or by tokens for models that are priced so."""
    text = str(body.get("input") or "") + str(body.get("instructions") or "")
    size = counted(None, text)
    if card.prices("input_characters"):
        return Request((Limit(("input_characters",), size),))
    spoken = size * SPEECH_TOKENS_PER_BYTE + _SPEECH_LEAST
    return Request((input_tokens(size + PER_REQUEST), output_tokens(spoken, ("audio",))))


def images(card: RateCard, body: Mapping[str, Any], *, pictures: int = 0) -> Request:
    """Bound generated or edited images; `pictures` is how many are sent along."""
    copies = number_of(body, "n", 1)
    named = [(name, str(body.get(name) or "")[:40]) for name in ("quality", "size")]
    context = tuple((name, value) for name, value in named if value)
    if card.prices("output_images"):
        return Request((Limit(("output_images",), copies),), context=context)
    per_image = _pixels(dict(named)["size"]) // _PIXELS_PER_TOKEN + _IMAGE_LEAST
    per_image += number_of(body, "partial_images", 0) * _DRAFT_TOKENS
    text = counted(None, str(body.get("prompt") or "")) + PER_REQUEST
    taken = input_tokens(text + pictures * IMAGE_TOKENS, ("image",))
    made = output_tokens(per_image * copies, ("image",))
    return Request((taken, made), context=context)


def _pixels(size: str) -> int:
    width, _, height = size.partition("x")
    if width.isdecimal() and height.isdecimal() and len(size) <= 11:
        return int(width) * int(height)
    return _IMAGE_SIDE * _IMAGE_SIDE
