"""Webhook bodies made of Stripe's own sample objects, where those lie beside the project."""

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.programs import ROOT

SAMPLES = ROOT.parent / "shared" / "stripe" / "fixtures3_2026-08.json"
ABSENT = f"Stripe's sample objects are not there ({SAMPLES.name})"


def samples_are_there(path: Path = SAMPLES) -> bool:
    """Tell whether the samples lie beside the project."""
    return path.exists()


def event(kind: str, sample: str, real: dict[str, Any], *names: str) -> bytes:
    """Return the body of an event about a real object, told in the shape of Stripe's sample.

    The sample gives the shape; `names` are taken from the real object. Without samples the real
    object itself is told.
    """
    told = dict(real)
    envelope: dict[str, Any] = {"object": "event", "api_version": "2026-10-28.endive"}
    if samples_are_there():
        resources = json.loads(SAMPLES.read_text("utf-8"))["resources"]
        told = {**deepcopy(resources[sample]), **{name: real[name] for name in names}}
        envelope = {**deepcopy(resources["event"]), "api_version": "2026-10-28.endive"}
    body = {
        **envelope,
        "id": f"evt_sample_{kind.replace('.', '_')}",
        "type": kind,
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": told},
    }
    body.pop("account", None)
    return json.dumps(body).encode()
