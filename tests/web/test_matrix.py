"""Own, foreign, missing and malformed ids with every kind of key, on every described route.

The routes come from the page itself, so a new one joins by itself; a new kind of id in a path must
be added to `IDS`, or the first test fails. A foreign id answers as a missing one, word for word.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from guthaben.store import cases, inbox
from guthaben.store.workspace import Workspace
from tests.web.conftest import Web

pytestmark = pytest.mark.edge

OWN, FOREIGN = "prac_own", "prac_foreign"
CANARY = "canary-of-the-foreign-practice"
UNGUARDED = ("/healthz", "/readyz", "/metrics", "/stripe/", "/v1/ai-credit", "/cycles/")
"""Without keys of ours: health, signed webhooks, and the four modules, which have their own matrix
in tests/modules. The Cycles protocol answers 403 for a foreign id: its matrix is in
tests/cycles/test_isolation.py."""
KEYS = {
    "none": None,
    "unknown": None,
    "revoked": None,
    "gate": (OWN, ("gate",)),
    "credit": (OWN, ("credit",)),
    "all of its own": (OWN, ("gate", "credit", "admin")),
    "operator of its own": (OWN, ("admin",)),
}
INVALID = ("none", "unknown", "revoked")
NAMES_OWN = {"X-Practice-Id": OWN}
MALFORMED = ("x", "call_1", "call_0_00000000000000000000", "call_9" * 20, "tu_", "%00", "..", "a b",
             "%F0%9F%98%80", "' OR 1=1 --", "-1", "call_1_%00")  # fmt: skip


@dataclass
class House:
    """Two practices, with a call and a purchase each, and what the ids in paths may be."""

    web: Web
    ids: dict[str, dict[str, str]]
    keys: dict[str, dict[str, str]]

    def state(self) -> tuple[Any, ...]:
        """Tell everything of the foreign practice that could be changed."""
        guthaben = self.web.services.guthaben
        return (
            guthaben.statement(FOREIGN), guthaben.calls(FOREIGN), guthaben.topups(FOREIGN),
            guthaben.balance(FOREIGN), self.web.services.caps.list(FOREIGN),
            self.web.services.payments.topups.settings(FOREIGN),
            self.web.services.targets.contacts(FOREIGN),
            self.web.services.targets.endpoints(FOREIGN),
        )  # fmt: skip


async def _filled(web: Web, practice_id: str, canary: str) -> dict[str, str]:
    """Give a practice a call, a purchase and a cap; return the ids."""
    web.give(10**9, practice_id)
    client = web.client(practice_id, ("gate", "credit", "admin"))
    body = {"amount_usd": "0.01", "key": "k", "reference": canary, "user_id": canary}
    call = await client.post("/v1/reservations", json=body)
    topup = await client.post("/v1/topups", json={"amount_chf": "30"})
    cap = {"subject": f"device:{canary}", "day_usd": "5"}
    await client.put(f"/v1/admin/practices/{practice_id}/caps", json=cap)
    contact = web.services.targets.add_contact(practice_id, f"{canary}@praxis.example")
    hooks = web.services.targets.add_endpoint(practice_id, f"https://{canary}.invalid/")
    event_id, case_no = _held_back(web, practice_id, canary)
    return {
        "event_id": event_id,
        "case_no": case_no,
        "call_id": call.json()["id"],
        "topup_id": topup.json()["topup_id"],
        "practice_id": practice_id,
        "model": "gpt-4o-mini",
        "contact_id": contact.contact_id,
        "endpoint_id": hooks.endpoint.endpoint_id,
    }


def _held_back(web: Web, practice_id: str, canary: str) -> tuple[str, str]:
    """Store a received event and a payment that waits for a person."""
    event_id = f"evt_{practice_id}"

    def work(space: Workspace) -> int:
        inbox.store(
            space.cursor, livemode=True, event_id=event_id, event_type="charge.succeeded",
            payload=canary.encode(), now_s=space.now_s, not_for_us="wrong_mode",
        )  # fmt: skip
        cases.open_case(
            space.cursor, practice_no=space.practice_no(practice_id), event_no=0,
            payment_id=f"pi_{canary}", session_id="", livemode=True, amount_minor=3_000,
            currency="chf", reason="amount_mismatch", now_s=space.now_s,
        )  # fmt: skip
        found = cases.of_payment(space.cursor, f"pi_{canary}")
        assert found is not None
        return found.case_no

    return event_id, str(web.services.core.store.run(work))


@pytest.fixture
async def house(web: Web) -> House:
    own, foreign = await _filled(web, OWN, "own"), await _filled(web, FOREIGN, CANARY)
    keys = {}
    for name, kind in KEYS.items():
        if kind is not None:
            made = web.services.keys.create(*kind, mode="test")
            keys[name] = {"Authorization": f"Bearer {made.key}"}
    keys["none"] = {}
    keys["unknown"] = {"Authorization": "Bearer gh_test_aaaaaaaaaa_" + "b" * 43}
    former = web.services.keys.create(OWN, ("gate", "credit", "admin"), mode="test")
    assert web.services.keys.revoke(former.key_id)
    keys["revoked"] = {"Authorization": f"Bearer {former.key}"}
    of_all = web.services.keys.create(None, ("gate", "credit", "admin"), mode="test")
    keys["of all practices"] = {"Authorization": f"Bearer {of_all.key}"}
    seal = foreign["call_id"].rpartition("_")[2]
    missing = {
        "event_id": "evt_nobody",
        "case_no": "999",
        "call_id": f"call_99_{seal}",
        "topup_id": "tu_" + "0" * 24,
        "practice_id": "prac_nobody",
        "model": "nobody-knows-it",
        "contact_id": _other(foreign["contact_id"]),
        "endpoint_id": _other(foreign["endpoint_id"]),
    }
    return House(web, {"own": own, "foreign": foreign, "missing": missing}, keys)


def _other(identity: str) -> str:
    """Make an id of the same kind that nobody has."""
    return identity[:-4] + ("aaaa" if identity[-4:] != "aaaa" else "bbbb")


def operations(web: Web) -> list[tuple[str, str, dict[str, Any]]]:
    """List what the page describes and a key guards."""
    return [
        (path, method, operation)
        for path, methods in web.app.openapi()["paths"].items()
        for method, operation in methods.items()
        if not path.startswith(UNGUARDED)
    ]


def example_of(operation: dict[str, Any]) -> Any:
    content = operation.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")


async def ask(
    house: House, key: str, path: str, method: str, operation: Any, ids: dict[str, str], **more: Any
) -> httpx.Response:
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    assert "{" not in path, f"{path}: add this kind of id to the matrix"
    client = house.web.client(scopes=())
    headers = {**house.keys[key], **more}
    return await client.request(method, path, json=example_of(operation), headers=headers)


def shown(answer: httpx.Response) -> tuple[int, str]:
    """Give what tells answers apart: not the id of the request."""
    try:
        body = answer.json()
    except json.JSONDecodeError:
        return answer.status_code, answer.text
    for place in (body, body.get("error", {}) if isinstance(body, dict) else {}):
        if isinstance(place, dict):
            place.pop("request_id", None)
    return answer.status_code, json.dumps(body, sort_keys=True)


async def test_the_matrix_knows_every_kind_of_id(house: House) -> None:
    found = operations(house.web)
    assert len(found) > 30
    for path, _method, _operation in found:
        for part in path.split("/"):
            if part.startswith("{"):
                assert part[1:-1].partition(":")[0] in house.ids["own"], path


@pytest.mark.parametrize("key", KEYS)
async def test_nothing_foreign_is_read_or_written(house: House, key: str) -> None:
    before = house.state()
    for path, method, operation in operations(house.web):
        place = (key, method, path)
        foreign = await ask(house, key, path, method, operation, house.ids["foreign"])
        assert CANARY not in foreign.text, place
        assert foreign.status_code < 500 or foreign.status_code == 503, place
        if "{" not in path or "{model" in path:
            continue
        assert foreign.status_code >= 400, place
        missing = await ask(house, key, path, method, operation, house.ids["missing"])
        assert shown(foreign) == shown(missing), place
    assert house.state() == before


@pytest.mark.parametrize("key", [key for key in KEYS if key not in INVALID])
async def test_a_header_that_names_another_practice_is_refused(house: House, key: str) -> None:
    before = house.state()
    for path, method, operation in operations(house.web):
        answer = await ask(
            house, key, path, method, operation, house.ids["own"], **{"X-Practice-Id": FOREIGN}
        )
        assert answer.status_code == 403, (key, method, path, answer.text)
        assert CANARY not in answer.text
    assert house.state() == before


@pytest.mark.parametrize("key", INVALID)
async def test_without_a_key_every_route_answers_alike(house: House, key: str) -> None:
    for path, method, operation in operations(house.web):
        for kind in house.ids:
            answer = await ask(house, key, path, method, operation, house.ids[kind])
            assert answer.status_code == 401, (method, path)


async def test_a_key_for_all_practices_reaches_the_one_it_names(house: House) -> None:
    """An operator's key may name any practice; a request that names one is about no other."""
    before, key, seen = house.state(), "of all practices", 0
    for path, method, operation in operations(house.web):
        if path.startswith("/v1/admin/"):
            continue
        foreign = await ask(house, key, path, method, operation, house.ids["foreign"], **NAMES_OWN)
        assert CANARY not in foreign.text, (method, path)
        if "{" in path and "{model" not in path:
            missing = await ask(
                house, key, path, method, operation, house.ids["missing"], **NAMES_OWN
            )
            assert shown(foreign) == shown(missing), (method, path)
            seen += 1
        unnamed = await ask(house, key, path, method, operation, house.ids["foreign"])
        assert unnamed.status_code == 400, (method, path, unnamed.text)
    assert seen > 5
    assert house.state() == before


async def test_malformed_ids_are_refused_and_never_break_anything(house: House) -> None:
    before = house.state()
    for path, method, operation in operations(house.web):
        if "{" not in path:
            continue
        for bad in MALFORMED:
            ids = dict.fromkeys(house.ids["own"], bad)
            answer = await ask(house, "all of its own", path, method, operation, ids)
            assert 400 <= answer.status_code < 500, (method, path, bad, answer.text)
            assert CANARY not in answer.text
    assert house.state() == before


async def test_its_own_are_reached(house: House) -> None:
    """The matrix would be empty if own ids were refused too."""
    reached = 0
    for path, method, operation in operations(house.web):
        if "{" in path and method == "get":
            ids = house.ids["own"]
            answer = await ask(house, "all of its own", path, method, operation, ids)
            reached += answer.status_code == 200
    assert reached >= 3
