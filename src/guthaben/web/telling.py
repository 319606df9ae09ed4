"""Routes of telling people: a practice's e-mail addresses, webhook endpoints and notices.

Law: a practice sees and changes its own. Addresses come back masked, a signing secret once. The
page to unsubscribe needs no key: its token is the permission, and reading it changes nothing.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from guthaben.channels.addresses import MAX_URL
from guthaben.channels.results import Sent
from guthaben.channels.wording import LANGUAGES, texts
from guthaben.services.notices import Notice
from guthaben.services.outbox_views import told_lately
from guthaben.services.targets import ContactView, EndpointView
from guthaben.web import models
from guthaben.web.call_shapes import NO_QUERY
from guthaben.web.deps import Services
from guthaben.web.problems import invalid
from guthaben.web.routing import add, answer, new_router, open_router, read_query
from guthaben.web.shapes import Field, Shape, choice, digits, needed, text
from guthaben.web.strict_json import read_object

_KINDS: Final = tuple(kind.value for kind in Notice)


def _kinds(about: str, *words: str) -> Field:
    """Read a list of kinds, each at most once."""
    one = choice("", *words)

    def read(name: str, value: Any) -> tuple[str, ...]:
        if type(value) is not list or len(value) > len(words):
            raise invalid(f"{name} must be a list of kinds.", field=name)
        return tuple(one.read(name, item) for item in value)

    schema = {"type": "array", "items": one.schema, "maxItems": len(words), "description": about}
    return Field(read, schema)


CONTACT: Final = Shape(
    "Contact",
    {
        "address": needed(text("An e-mail address; it can be erased.", 254, opaque=False)),
        "language": choice("Of the messages; default de.", *LANGUAGES),
    },
    {"address": "office@praxis.example", "language": "de"},
)
PREFERENCES: Final = Shape(
    "Preferences",
    {
        "unsubscribed": needed(
            _kinds(
                "What the address does not want; * is all hints. Contractual messages always come.",
                "*",
                *(kind.value for kind in Notice if not kind.about.contractual),
            )
        )
    },
    {"unsubscribed": ["low_balance_20"]},
)
ENDPOINT: Final = Shape(
    "Webhook endpoint",
    {
        "url": needed(text("Where webhooks go: https, a public address.", MAX_URL, opaque=False)),
        "kinds": _kinds("Only these; default all.", *_KINDS),
    },
    {"url": "https://hooks.praxis.example/guthaben", "kinds": ["low_balance_5", "topped_up"]},
)
NOTICES: Final = Shape(
    "Page of notices", {"limit": digits("How many; default 50.", 1, 500)}, {"limit": "20"}
)
_CONTACT: Final = {"contact_id": "The id that adding the address gave."}
_ENDPOINT: Final = {"endpoint_id": "The id that adding the endpoint gave."}


class TellingRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._targets = services.targets

    async def _owner(self, request: Request) -> str:
        caller = await self._services.access.caller(request, "credit")
        return str(caller.practice_id)

    async def _done(self, request: Request, work: Any, *values: Any) -> Response:
        owner = await self._owner(request)
        await self._services.slowly(work, owner, *values)
        return answer({"practice_id": owner, "done": True})

    # ---- addresses

    async def contacts(self, request: Request) -> Response:
        """List the e-mail addresses that notices go to, masked."""
        owner = await self._owner(request)
        read_query(request, NO_QUERY)
        found = await self._services.slowly(self._targets.contacts, owner)
        return answer({"contacts": [_contact(view) for view in found]})

    async def add_contact(self, request: Request) -> Response:
        """Send notices to an e-mail address; a known one only gets the language."""
        owner = await self._owner(request)
        options = CONTACT.read(await read_object(request))
        made = await self._services.slowly(
            self._targets.add_contact, owner, options["address"], options.get("language", "de")
        )
        return answer(_contact(made), 201)

    async def erase_contact(self, request: Request) -> Response:
        """Erase an e-mail address for good."""
        contact_id = request.path_params["contact_id"]
        return await self._done(request, self._targets.erase_contact, contact_id)

    async def preferences(self, request: Request) -> Response:
        """Say which hints an address does not want."""
        owner = await self._owner(request)
        options = PREFERENCES.read(await read_object(request))
        contact_id = request.path_params["contact_id"]
        await self._services.slowly(
            self._targets.set_preferences, owner, contact_id, options["unsubscribed"]
        )
        return answer({"practice_id": owner, "done": True})

    # ---- endpoints

    async def endpoints(self, request: Request) -> Response:
        """List the webhook endpoints."""
        owner = await self._owner(request)
        read_query(request, NO_QUERY)
        found = await self._services.slowly(self._targets.endpoints, owner)
        return answer({"endpoints": [_endpoint(view) for view in found]})

    async def add_endpoint(self, request: Request) -> Response:
        """Send signed webhooks to a URL; the secret is shown this once."""
        owner = await self._owner(request)
        options = ENDPOINT.read(await read_object(request))
        made = await self._services.slowly(
            self._targets.add_endpoint, owner, options["url"], options.get("kinds", ())
        )
        return answer({**_endpoint(made.endpoint), "secret": made.secret}, 201)

    async def remove_endpoint(self, request: Request) -> Response:
        """Send nothing more to an endpoint."""
        endpoint_id = request.path_params["endpoint_id"]
        return await self._done(request, self._targets.remove_endpoint, endpoint_id)

    async def enable_endpoint(self, request: Request) -> Response:
        """Send to an endpoint again that was switched off."""
        endpoint_id = request.path_params["endpoint_id"]
        return await self._done(request, self._targets.enable_endpoint, endpoint_id)

    async def roll_secret(self, request: Request) -> Response:
        """Give an endpoint a new secret; for a day the old one signs beside it."""
        owner, endpoint_id = await self._owner(request), request.path_params["endpoint_id"]
        secret = await self._services.slowly(self._targets.roll_secret, owner, endpoint_id)
        return answer({"endpoint_id": endpoint_id, "secret": secret})

    async def try_endpoint(self, request: Request) -> Response:
        """Send a webhook of the type `test` now, and tell whether it was taken."""
        owner, endpoint_id = await self._owner(request), request.path_params["endpoint_id"]
        result = await self._services.slowly(self._targets.test_endpoint, owner, endpoint_id)
        reason = "" if isinstance(result, Sent) else result.reason
        return answer({"endpoint_id": endpoint_id, "taken": not reason, "reason": reason})

    # ---- notices

    async def notices(self, request: Request) -> Response:
        """List what the practice was told, newest first, and how it was delivered."""
        owner = await self._owner(request)
        limit = read_query(request, NOTICES).get("limit", 50)
        found = await self._services.slowly(
            told_lately, self._services.core.store, owner, limit, for_practice=True
        )
        return answer({
            "notices": [
                {"id": view.notice_id, "kind": view.kind, "told_at_s": view.told_at_s,
                 "deliveries": view.deliveries}
                for view in found
            ]
        })  # fmt: skip

    # ---- unsubscribing

    async def ask_to_unsubscribe(self, request: Request) -> Response:
        """Ask a reader whether hints should stop; reading changes nothing."""
        token = request.query_params.get("token", "")
        good = await self._services.slowly(self._targets.is_token, token)
        return await self._page(token, "confirm" if good else "bad_link", with_form=good)

    async def unsubscribe(self, request: Request) -> Response:
        """Stop hints: the button of the page, or one click in the reader's mail program."""
        token = request.query_params.get("token", "")
        good = await self._services.slowly(self._targets.unsubscribe, token)
        return await self._page(token, "unsubscribed" if good else "bad_link")

    async def _page(self, token: str, words: str, *, with_form: bool = False) -> Response:
        language = await self._services.slowly(self._targets.language_of, token) or "en"
        common = texts(language)["common"]
        page = _PAGE.render(
            language=language, words=common[words], button=common["confirm_button"] * with_form
        )
        return HTMLResponse(page, 400 if words == "bad_link" else 200, _HEADERS)


def _contact(view: ContactView) -> dict[str, Any]:
    return {**view._asdict(), "unsubscribed": list(view.unsubscribed)}


def _endpoint(view: EndpointView) -> dict[str, Any]:
    return {**view._asdict(), "kinds": list(view.kinds)}


def router(services: Services) -> APIRouter:
    """Make the routes of telling people."""
    routes, api = TellingRoutes(services), new_router("telling")
    done = {200: models.DoneModel}
    one, hook = "/v1/contacts/{contact_id}", "/v1/webhook-endpoints/{endpoint_id}"
    table: tuple[tuple[str, str, Any, Any, Any], ...] = (
        ("GET", "/v1/contacts", routes.contacts, None, {200: models.ContactsModel}),
        ("POST", "/v1/contacts", routes.add_contact, CONTACT, {201: models.ContactModel}),
        ("PUT", f"{one}/preferences", routes.preferences, PREFERENCES, done),
        ("DELETE", one, routes.erase_contact, None, done),
        ("GET", "/v1/webhook-endpoints", routes.endpoints, None, {200: models.EndpointsModel}),
        ("POST", "/v1/webhook-endpoints", routes.add_endpoint, ENDPOINT,
         {201: models.NewEndpointModel}),
        ("POST", f"{hook}/test", routes.try_endpoint, None, {200: models.TriedModel}),
        ("POST", f"{hook}/secret", routes.roll_secret, None, {200: models.SecretModel}),
        ("POST", f"{hook}/enable", routes.enable_endpoint, None, done),
        ("DELETE", hook, routes.remove_endpoint, None, done),
    )  # fmt: skip
    for method, path, endpoint, shape, answers in table:
        named = _CONTACT if "{contact_id}" in path else _ENDPOINT if "{endpoint_id}" in path else {}
        add(api, method, path, endpoint, body=shape, answers=answers, path_parameters=named)
    add(
        api, "GET", "/v1/notices", routes.notices,
        query=NOTICES, answers={200: models.NoticesModel},
    )  # fmt: skip
    pages = open_router("telling")
    for method, endpoint in (("GET", routes.ask_to_unsubscribe), ("POST", routes.unsubscribe)):
        pages.add_api_route("/unsubscribe", endpoint, methods=[method], include_in_schema=False)
    api.routes.extend(pages.routes)
    return api


_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}
_PAGE: Final = Environment(autoescape=True).from_string(
    """\
<!doctype html>
<html lang="{{ language }}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Guthaben</title></head>
<body>
<main>
<p>{{ words }}</p>
{% if button %}
<form method="post"><button type="submit">{{ button }}</button></form>
{% endif %}
</main>
</body>
</html>
"""
)
