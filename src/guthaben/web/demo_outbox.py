"""The demo's outbox: the e-mails that its practice would get, shown instead of sent.

Law: `guthaben demo` alone puts it into the server. It shows one practice, answers only to the names
of this machine, and changes nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from guthaben import config
from guthaben.services.outbox_views import one_told, told_lately
from guthaben.texts import LANGUAGES, show, text
from guthaben.web.deps import Services
from guthaben.web.problems import Problem
from guthaben.web.routing import open_router

PATH: Final = "/outbox"
_SHOWN: Final = 20
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def add_demo_outbox(app: FastAPI, services: Services, practice_id: str, address: str) -> None:
    """Serve the page at `/outbox`; `?language=fr` shows it in another language."""
    port = urlsplit(address).port
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    template = Environment(loader=loader, autoescape=True).get_template("demo_outbox.html")
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def page(request: Request) -> Response:
        if request.headers.get("host") not in hosts:
            raise Problem(403, "forbidden", "This page is for this machine alone.")
        asked = request.query_params.get("language", "")
        language = asked if asked in LANGUAGES else "de"
        # The practice's own e-mail would lead to the portal, where the demo lets nobody log in.
        portal = f"{address}/demo/portal?lang={language}"
        mails = await asyncio.to_thread(_mails, services, practice_id, language, portal)
        shown = template.render(
            mails=mails,
            practice_id=practice_id,
            language=language,
            languages=[(name, text("language.name", name)) for name in LANGUAGES],
        )
        return HTMLResponse(shown, headers=_HEADERS)

    router = open_router("demo")
    router.add_api_route(PATH, page, methods=["GET"], include_in_schema=False)
    app.router.routes.extend(router.routes)


def _mails(
    services: Services, practice_id: str, language: str, portal_url: str
) -> list[dict[str, str]]:
    store, zone = services.core.store, config.time_zone()
    mails = []
    for view in told_lately(store, practice_id, _SHOWN, for_practice=True):
        found = one_told(store, view.notice_id)
        if found is not None:
            worded = services.dispatcher.worded(
                found[0], practice_id, language, portal_url=portal_url
            )
            at = show.minute(found[0].told_at_s, zone)
            mails.append({"subject": worded.subject, "text": worded.text, "at": at})
    return mails
