"""The demo's own page and the session it uses; `guthaben demo` alone puts it into the server.

Law: the page talks to the same JSON API as everybody. Its session belongs to one practice, is made
anew with each process, and counts only for requests to this machine: the host must be the server's
own, a change needs the token in the page, and no other site may be the origin.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from guthaben import __version__
from guthaben.services.api_keys import Credential
from guthaben.services.portal import Portal
from guthaben.texts import LANGUAGES
from guthaben.web.deps import Services
from guthaben.web.problems import Problem
from guthaben.web.routing import open_router

_HERE: Final = Path(__file__).parent
_SCOPES: Final = frozenset({"gate", "credit", "admin"})
_READING: Final = frozenset({"GET", "HEAD"})
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}


class DemoPage:
    """One practice's page on one address, such as `http://127.0.0.1:8000`."""

    def __init__(self, portal: Portal, practice_id: str, address: str) -> None:
        self._portal = portal
        parts = urlsplit(address)
        self._practice_id = practice_id
        self._hosts = {f"{name}:{parts.port}" for name in ("127.0.0.1", "localhost")}
        self._cookie = f"guthaben_demo_{parts.port}"  # cookies don't tell ports apart
        self._session = secrets.token_urlsafe(32)
        self._token = secrets.token_urlsafe(32)
        loader = FileSystemLoader(_HERE / "templates")
        self._page = Environment(loader=loader, autoescape=True).get_template("demo.html")

    async def portal(self, request: Request) -> Response:
        """Lead to the portal as the practice sees it."""
        if request.headers.get("host") not in self._hosts:
            raise Problem(421, "wrong_host", "The demo answers on this machine's own address.")
        asked = request.query_params.get("lang", "")
        token = self._portal.link(
            self._practice_id,
            actor="demo_page",
            language=asked if asked in LANGUAGES else None,
            return_url=f"http://{request.headers['host']}/",
        )
        return RedirectResponse(f"/portal/enter?t={token}", 303, _HEADERS)

    def credential(self, request: Request) -> Credential | None:
        """Let the page's own requests in; None for all others."""
        headers = request.headers
        if headers.get("host") not in self._hosts:
            return None
        if not _same(request.cookies.get(self._cookie, ""), self._session):
            return None
        if request.method not in _READING and not self._is_own_change(request):
            return None
        return Credential("demo_page", self._practice_id, _SCOPES)

    def _is_own_change(self, request: Request) -> bool:
        headers = request.headers
        origin = headers.get("origin", "")
        return (
            _same(headers.get("x-csrf-token", ""), self._token)
            and origin in {"", *(f"http://{host}" for host in self._hosts)}
            and headers.get("sec-fetch-site", "same-origin") == "same-origin"
        )

    async def show(self, request: Request) -> Response:
        """Show the page, and begin its session."""
        if request.headers.get("host") not in self._hosts:
            raise Problem(421, "wrong_host", "The demo answers on this machine's own address.")
        page = self._page.render(
            practice_id=self._practice_id,
            token=self._token,
            version=__version__,
        )
        answer = HTMLResponse(page, 200, _HEADERS)
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        return answer


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def add_demo_page(app: FastAPI, services: Services, practice_id: str, address: str) -> None:
    """Put the demo's page into a server, and let its session in."""
    page = DemoPage(services.portal, practice_id, address)
    services.access.session = page.credential
    api = open_router("demo")
    api.add_api_route("/", page.show, methods=["GET"], include_in_schema=False)
    api.add_api_route("/demo/portal", page.portal, methods=["GET"], include_in_schema=False)
    app.include_router(api)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
