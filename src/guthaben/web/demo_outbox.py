"""The demo's outbox: the e-mails that its practice would get, shown instead of sent.

Law: `guthaben demo` alone puts it into the server. It shows one practice, answers only to the names
of this machine, and changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from guthaben.channels.wording import LANGUAGES
from guthaben.services.outbox_views import one_told, told_lately
from guthaben.web.deps import Services
from guthaben.web.problems import Problem
from guthaben.web.routing import open_router

PATH: Final = "/outbox"
_SHOWN: Final = 20
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def add_demo_outbox(app: FastAPI, services: Services, practice_id: str, address: str) -> None:
    """Serve the page at `/outbox`; `?language=fr` shows it in another language."""
    port = urlsplit(address).port
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def page(request: Request) -> Response:
        if request.headers.get("host") not in hosts:
            raise Problem(403, "forbidden", "This page is for this machine alone.")
        asked = request.query_params.get("language", "")
        language = asked if asked in LANGUAGES else "de"
        mails = await asyncio.to_thread(_mails, services, practice_id, language)
        shown = _PAGE.render(mails=mails, language=language, languages=LANGUAGES)
        return HTMLResponse(shown, headers=_HEADERS)

    router = open_router("demo")
    router.add_api_route(PATH, page, methods=["GET"], include_in_schema=False)
    app.router.routes.extend(router.routes)


def _mails(services: Services, practice_id: str, language: str) -> list[dict[str, str]]:
    store = services.core.store
    mails = []
    for view in told_lately(store, practice_id, _SHOWN, for_practice=True):
        found = one_told(store, view.notice_id)
        if found is not None:
            worded = services.dispatcher.worded(found[0], practice_id, language)
            mails.append({"subject": worded.subject, "text": worded.text})
    return mails


_PAGE: Final = Environment(autoescape=True).from_string(
    """\
<!doctype html>
<html lang="{{ language }}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Outbox</title></head>
<body>
<main>
<h1>Outbox</h1>
<p>What the practice would get by e-mail. The demo sends nothing.
{% for name in languages %}<a href="?language={{ name }}">{{ name }}</a> {% endfor %}</p>
{% for mail in mails %}
<article><h2>{{ mail.subject }}</h2><pre>{{ mail.text }}</pre></article>
{% else %}
<p>Nothing yet: buy credit, or use it up.</p>
{% endfor %}
</main>
</body>
</html>
"""
)
