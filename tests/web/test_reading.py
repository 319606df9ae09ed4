"""What comes in is read strictly: every body that two readers could understand differently is
refused, and a refused request changes nothing."""

import json

import pytest

from guthaben.web import admin, call_shapes, credit
from guthaben.web.problems import Problem
from guthaben.web.shapes import Field, Shape, is_web_address
from guthaben.web.strict_json import MAX_BODY, decode
from tests.web.conftest import Web

pytestmark = pytest.mark.edge

BODIES = [
    ("POST", "/v1/reservations", call_shapes.RESERVE),
    ("POST", "/v1/reservations/{call}/settle", call_shapes.SETTLE),
    ("POST", "/v1/reservations/{call}/release", call_shapes.RELEASE),
    ("POST", "/v1/reservations/{call}/extend", call_shapes.EXTEND),
    ("POST", "/v1/usage", call_shapes.USAGE),
    ("POST", "/v1/topups", credit.TOPUP),
    ("POST", "/v1/payment-method/setup", credit.SETUP),
    ("PUT", "/v1/auto-topup", credit.AUTO_TOPUP),
    ("POST", "/v1/admin/practices/prac_1/grants", admin.GRANT),
    ("POST", "/v1/admin/practices/prac_1/adjustments", admin.ADJUSTMENT),
    ("PUT", "/v1/admin/practices/prac_1/license", admin.LICENSE),
    ("PUT", "/v1/admin/practices/prac_1/policy", admin.POLICY),
]
IDS = [f"{method} {path}" for method, path, _ in BODIES]
AMOUNTS = sorted(
    {
        (index, name)
        for index, (_, _, shape) in enumerate(BODIES)
        for name in shape.fields
        if name.endswith(("_usd", "_chf"))
    }
)
BROKEN = {
    "NaN": lambda text: text.replace("{", '{"tags": NaN, ', 1),
    "Infinity": lambda text: text.replace("{", '{"tags": Infinity, ', 1),
    "-Infinity": lambda text: text.replace("{", '{"tags": -Infinity, ', 1),
    "a fraction": lambda text: text.replace("{", '{"ttl_s": 1.5, ', 1),
    "an exponent": lambda text: text.replace("{", '{"ttl_s": 1e2, ', 1),
    "a huge number": lambda text: text.replace("{", '{"ttl_s": ' + "9" * 5000 + ", ", 1),
    "a list": lambda text: f"[{text}]",
    "a text": lambda text: json.dumps(text),
    "null": lambda text: "null",
    "nothing closed": lambda text: text[:-1],
    "two values": lambda text: text + text,
    "deep nesting": lambda text: '{"tags": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "an unknown field": lambda text: text.replace("{", '{"amount": "1", ', 1),
    "a byte order mark": lambda text: "\ufeff" + text,
}


async def send(web: Web, method: str, path: str, content: bytes | str, **headers: str):
    web.give()
    if not web.opened:
        web.client(scopes=("gate", "credit", "admin"))
    client = web.opened[0]
    if "{call}" in path:
        call = web.services.guthaben.reserve("prac_1", 1_000, key="the call")
        path = path.replace("{call}", call.id)
    headers = {"Content-Type": "application/json", **headers}
    before = web.seq()
    answer = await client.request(method, path, content=content, headers=headers)
    return answer, before == web.seq()


@pytest.mark.parametrize(("method", "path", "shape"), BODIES, ids=IDS)
async def test_a_broken_body_is_refused_and_changes_nothing(
    web: Web, method: str, path: str, shape: Shape
) -> None:
    for kind, breaking in BROKEN.items():
        body = breaking(json.dumps(dict(shape.example)))
        answer, unchanged = await send(web, method, path, body)
        assert answer.status_code == 400, (kind, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "invalid_input", kind
        assert unchanged, kind


@pytest.mark.parametrize(("method", "path", "shape"), BODIES, ids=IDS)
async def test_a_name_that_occurs_twice_is_refused(
    web: Web, method: str, path: str, shape: Shape
) -> None:
    name, value = next(iter(shape.example.items()))
    twice = f'{{"{name}": {json.dumps(value)}, "{name}": {json.dumps(value)}}}'
    answer, unchanged = await send(web, method, path, twice)
    assert (answer.status_code, unchanged) == (400, True)
    assert "twice" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path", "shape"), BODIES, ids=IDS)
async def test_each_required_field_is_required(
    web: Web, method: str, path: str, shape: Shape
) -> None:
    for name, field in shape.fields.items():
        if field.required:
            body = {key: value for key, value in shape.example.items() if key != name}
            answer, unchanged = await send(web, method, path, json.dumps(body))
            assert (answer.status_code, unchanged) == (400, True)
            assert answer.json()["field"] == name


WRONG_AMOUNTS: list[object] = [
    1, 1.5, True, None, [], {}, "", " 1", "1 ", "+1", "1e3", "0x10", "1,5", "1.", ".5", "١", "½",
    "NaN", "Infinity", "1_000", "1.0000000001", "9" * 20, "1000000.01", "--1", "1\n",
]  # fmt: skip


@pytest.mark.parametrize(("index", "name"), AMOUNTS, ids=[f"{IDS[i]} {n}" for i, n in AMOUNTS])
async def test_an_amount_is_a_decimal_string_and_nothing_else(
    web: Web, index: int, name: str
) -> None:
    method, path, shape = BODIES[index]
    for wrong in WRONG_AMOUNTS:
        body = {**shape.example, name: wrong}
        answer, unchanged = await send(web, method, path, json.dumps(body))
        assert answer.status_code == 400, (wrong, answer.text)
        assert answer.json()["code"] in {"invalid_amount", "invalid_input"}, wrong
        assert unchanged, wrong


async def test_every_field_refuses_values_of_another_kind(web: Web) -> None:
    others: list[object] = [
        None,
        True,
        "text",
        7,
        [],
        {"a": 1},
        [1],
        "x" * 3000,
        "\u0000",
        "\ud800",
    ]
    for _method, path, shape in BODIES:
        for name, field in shape.fields.items():
            taken = [other for other in others if not refused(field, name, other)]
            assert all(type(other) in {str, bool, int, dict} for other in taken), (path, name)
            assert "\u0000" not in taken, (path, name)
    assert web.seq() == (0, 0, 0)


def refused(field: Field, name: str, value: object) -> bool:
    try:
        field.read(name, value)
    except Problem as problem:
        return problem.status == 400
    return False


@pytest.mark.parametrize("length", [MAX_BODY + 1, 10 * MAX_BODY])
async def test_a_body_over_the_limit_is_413(web: Web, length: int) -> None:
    body = json.dumps({"amount_usd": "1", "key": "k"}).encode()
    padded = body[:-1] + b" " * (length - len(body)) + b"}"
    answer, unchanged = await send(web, "POST", "/v1/reservations", padded)
    assert (answer.status_code, unchanged) == (413, True)
    assert answer.json()["code"] == "body_too_large"


async def test_the_limit_holds_without_a_content_length_too(web: Web) -> None:
    async def parts():
        for _ in range(100):
            yield b" " * 4096

    client = web.client()
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/v1/reservations", content=parts(), headers=headers)
    assert answer.status_code == 413


async def test_a_body_just_within_the_limit_is_read(web: Web) -> None:
    body = json.dumps({"amount_usd": "1", "key": "k"}).encode()
    padded = body[:-1] + b" " * (MAX_BODY - len(body)) + b"}"
    answer, _ = await send(web, "POST", "/v1/reservations", padded)
    assert answer.status_code == 201


async def test_only_plain_json_is_read(web: Web) -> None:
    body = json.dumps(dict(call_shapes.RESERVE.example))
    for headers in (
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Encoding": "gzip"},
    ):
        answer, unchanged = await send(web, "POST", "/v1/reservations", body, **headers)
        assert (answer.status_code, unchanged) == (415, True)
    answer, _ = await send(web, "POST", "/v1/reservations", body.encode("utf-16"))
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=-1", "limit=1.5", "limit=", "limit=1&limit=2", "page=2",
     "before=x", "before=-1", "before=0", "limit=%D9%A1", "limit=" + "9" * 30],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/statement", "/v1/topups"])
async def test_a_query_is_read_as_strictly(web: Web, path: str, query: str) -> None:
    answer = await web.client().get(f"{path}?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b'{"a": [{"b": 1, "b": 2}]}', "twice"),
        (b'{"a": 1.0}', "decimal strings"),
        (b'{"a": NaN}', "NaN"),
        (b"\xff", "UTF-8"),
        (b"", "not JSON"),
        (b"1", "object"),
        (b'{"a": 1' + b"0" * 19 + b"}", "digits"),
    ],
)
def test_the_decoder_says_what_is_wrong(raw: bytes, part: str) -> None:
    with pytest.raises(Problem) as caught:
        decode(raw)
    assert caught.value.status == 400
    assert part in caught.value.detail


@pytest.mark.parametrize(
    "address",
    ["https://app.example.com/credit?s={CHECKOUT_SESSION_ID}", "http://127.0.0.1:8000/"],
)
def test_addresses_to_come_back_to(address: str) -> None:
    assert is_web_address(address)


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:text/html,x", "//evil.example.com", "/here", "https://", "ftp://a",
     "https://user:word@evil.example.com/", "https://a b.example.com/", "https://a.example.com\\@b",
     "https://a.example.com/\n", "https://a.example.com:99999/", "https://exämple.com/",
     "https://[::1", "https://a.example.com/" + "x" * 3000, ""],
)  # fmt: skip
def test_addresses_nobody_is_sent_to(address: str) -> None:
    assert not is_web_address(address)
