"""The practice's portal: balance, usage, buying credit, automatic top-up, payments.

Law: a visitor comes by a signed link and sees one practice; no API key is ever in a page. A change
needs the token that stands in the session's own form, and no other site may be its origin. All
works without scripts. The page of a purchase needs its id alone, only reads, and credits nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from guthaben import config
from guthaben.errors import GuthabenError, PaymentError
from guthaben.services.portal import PortalSession
from guthaben.services.topups import CONSENT_VERSION, AutoTopupChange
from guthaben.texts import LANGUAGES, best_language, show
from guthaben.web import portal_pages
from guthaben.web.credit import topup_amount_refused
from guthaben.web.deps import Services
from guthaben.web.portal_pages import ASSETS, AutoForm, Shown, page, purchase_page
from guthaben.web.problems import Problem, in_words, of_error, switched_off
from guthaben.web.routing import open_router
from guthaben.web.strict_json import read_bytes

COOKIE: Final = "guthaben_portal"
_LARGEST_FORM: Final = 16_384
_MOST_LOOKS: Final = 40
_STATIC: Final = Path(__file__).parent / "static"
_MEDIA: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # Forms lead on to the provider's page, whose address is known only to the provider.
        "form-action 'self' https: http://127.0.0.1:* http://localhost:*",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


class PortalRoutes:
    """The pages and their forms."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._portal = services.portal

    # ---- coming and going

    async def enter(self, request: Request) -> Response:
        """Begin a session by a link."""
        session = self._portal.enter(request.query_params.get("t", ""))
        if session is None:
            return self._session_over(request)
        answer = RedirectResponse(".", 303, _HEADERS)
        self._keep(request, answer, session)
        return answer

    async def leave(self, request: Request) -> Response:
        """End the session and go back to where the visitor came from."""
        session = self._session(request)
        target = session.return_url if session else ""
        if target:
            answer: Response = RedirectResponse(target, 303, _HEADERS)
        else:
            answer = self._session_over(request, 200)
        answer.delete_cookie(COOKIE, path=self._cookie_path(request))
        return answer

    def _session(self, request: Request) -> PortalSession | None:
        return self._portal.session(request.cookies.get(COOKIE, ""))

    def _keep(self, request: Request, answer: Response, session: PortalSession) -> None:
        answer.set_cookie(
            COOKIE,
            self._portal.token(session),
            path=self._cookie_path(request),
            httponly=True,
            secure=self._home(request).startswith("https:"),
            samesite="lax",  # strict would lose the session on the way back from the provider
        )

    def _home(self, request: Request) -> str:
        """Give the address of the portal as customers reach it, ending in a slash."""
        if self._services.public_url:
            return f"{self._services.public_url}/portal/"
        path = request.url.path
        return (
            f"{request.url.scheme}://{request.url.netloc}{path[: path.index('/portal/')]}/portal/"
        )

    def _cookie_path(self, request: Request) -> str:
        return urlsplit(self._home(request)).path

    def _session_over(self, request: Request, status: int = 401) -> Response:
        language = self._language(request)
        page_ = portal_pages.message(language, "session.title", "session.text", root="")
        return HTMLResponse(page_, status, _HEADERS)

    def _language(self, request: Request, session: PortalSession | None = None) -> str:
        asked = request.query_params.get("lang")
        if asked in LANGUAGES:
            return str(asked)
        if session is not None:
            return session.language
        header = best_language(request.headers.get("accept-language", ""))
        return header or portal_pages.default_language()

    # ---- the page

    async def show(self, request: Request) -> Response:
        """Show the practice's page; `lang` changes the language of the session."""
        session = self._session(request)
        if session is None:
            return self._session_over(request)
        asked = request.query_params.get("lang", "")
        if asked in LANGUAGES and asked != session.language:
            session = session._replace(language=asked)
        done = request.query_params.get("done", "")
        if request.query_params.get("back"):
            done = "turned_back"
        answer = await self._page(request, session, Shown(done=done))
        self._keep(request, answer, session)
        return answer

    async def _page(
        self, request: Request, session: PortalSession, shown: Shown, status: int = 200
    ) -> Response:
        before = request.query_params.get("before", "")
        older = int(before) if before.isascii() and before.isdigit() and len(before) < 18 else None
        token = self._portal.form_token(session)
        html = await self._services.slowly(
            page, self._services, session, shown._replace(form_token=token, before_event_no=older)
        )
        return HTMLResponse(html, status, _HEADERS)

    # ---- its forms

    async def buy(self, request: Request) -> Response:
        """Begin a purchase and send the visitor to where it is paid."""
        session, form = await self._form(request)
        if session is None:
            return self._session_over(request)
        amount_rappen = show.typed_chf(form.get("amount", ""))
        shown = Shown(amount=form.get("amount", "")[:20], save_card=form.get("save_card") == "1")

        async def begin() -> str:
            if not self._services.sells:
                raise switched_off()
            least, most = config.topup_limits_rappen()
            if amount_rappen is None or not least <= amount_rappen <= most:
                raise topup_amount_refused("amount")
            home = self._home(request)
            start = await self._services.slowly(
                self._services.payments.topups.start_checkout,
                session.practice_id,
                amount_rappen,
                success_url=f"{home}purchase/{{TOPUP_ID}}",
                cancel_url=f"{home}purchase/{{TOPUP_ID}}?back=1",
                save_card=shown.save_card,
                actor=session.actor,
                locale=session.language,
            )
            return str(start.url)

        return await self._led_on(request, session, shown, begin)

    async def card(self, request: Request) -> Response:
        """Send the visitor to where a card is saved."""
        session, _form = await self._form(request)
        if session is None:
            return self._session_over(request)

        async def begin() -> str:
            home = self._home(request)
            start = await self._services.slowly(
                self._services.payments.topups.start_setup,
                session.practice_id,
                success_url=f"{home}?done=card",
                cancel_url=f"{home}?back=1",
                locale=session.language,
            )
            return str(start.url)

        return await self._led_on(request, session, Shown(), begin)

    async def auto(self, request: Request) -> Response:
        """Change the automatic top-up: show the text with its numbers, then take the consent."""
        session, form = await self._form(request)
        if session is None:
            return self._session_over(request)
        wish = AutoForm.read(form)

        async def begin() -> str:
            topups = self._services.payments.topups
            known = await self._services.slowly(topups.settings, session.practice_id)
            change = wish.change(known, session)
            if change.enabled and form.get("agreed") == "1":
                change = AutoTopupChange(
                    **{**wish.fields(change), "consent_text_version": CONSENT_VERSION}
                )
            await self._services.slowly(topups.change_settings, session.practice_id, change)
            if not change.enabled:
                return "./?done=auto_off"
            return "./?done=auto_saved" if known.enabled else "./?done=auto_on"

        return await self._led_on(request, session, Shown(auto=wish), begin)

    async def give_up(self, request: Request) -> Response:
        """Close the payment page of one's own purchase."""
        session, _form = await self._form(request)
        if session is None:
            return self._session_over(request)
        topup_id = request.path_params["topup_id"]
        closer = self._services.payments.closer
        await self._services.slowly(closer.close, session.practice_id, topup_id)
        return RedirectResponse(f"../{topup_id}", 303, _HEADERS)

    async def _form(self, request: Request) -> tuple[PortalSession | None, dict[str, str]]:
        """Read a form of the session's own page; no session for what comes from elsewhere."""
        raw = await read_bytes(request, _LARGEST_FORM)
        form = dict(parse_qsl(raw.decode("utf-8", "replace"), max_num_fields=30))
        own = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        session = self._session(request)
        if session is None or not own:
            return None, {}
        if not self._portal.is_form_token(session, form.get("token", "")):
            return None, {}
        return session, form

    async def _led_on(
        self,
        request: Request,
        session: PortalSession,
        shown: Shown,
        begin: Callable[[], Awaitable[str]],
    ) -> Response:
        """Go where a form leads, or show the page again with what is wrong."""
        try:
            return RedirectResponse(await begin(), 303, _HEADERS)
        except Problem as problem:
            refused = problem
        except PaymentError as error:
            refused = of_error(error)
        except GuthabenError as error:
            refused = of_error(error)
        if refused.code == "consent_required" and shown.auto is not None:
            topups = self._services.payments.topups
            known = await self._services.slowly(topups.settings, session.practice_id)
            asked = shown._replace(asks_consent=shown.auto.change(known, session))
            return await self._page(request, session, asked)
        said = in_words(refused, session.language) or (refused.code, refused.detail)
        return await self._page(request, session, shown._replace(error=said), refused.status)

    # ---- a purchase

    async def purchase(self, request: Request) -> Response:
        """Tell how far a purchase is; refreshes itself, more and more seldom, while it is open."""
        session = self._session(request)
        language = self._language(request, session)
        topup_id = request.path_params["topup_id"]
        found = None
        if self._services.has_payments:
            found = await self._services.slowly(self._services.payments.topups.progress, topup_id)
        if found is None:
            html = portal_pages.message(
                language, "purchase.unknown.title", "purchase.unknown.text", root="../"
            )
            return HTMLResponse(html, 404, _HEADERS)
        asked = request.query_params.get("look", "")
        looks = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 4 else 0
        turned_back = request.query_params.get("back") == "1"
        own = session if session and session.practice_id == found.practice_id else None
        form_token = self._portal.form_token(own) if own else ""
        html = purchase_page(language, found, turned_back=turned_back, form_token=form_token)
        headers = dict(_HEADERS)
        if found.state in {"open", "processing", "paid"} and looks < _MOST_LOOKS:
            pause_s = 2 if looks < 5 else 5 if looks < 15 else 15
            back = "&back=1" if turned_back else ""
            headers["Refresh"] = f"{pause_s}; url=?look={looks + 1}{back}&lang={language}"
        return HTMLResponse(html, 200, headers)

    async def asset(self, request: Request) -> Response:
        """Serve one of the portal's own files."""
        name = request.path_params["name"]
        if name not in ASSETS:
            raise Problem(404, "not_found", "There is no such file.")
        headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        media = _MEDIA[Path(name).suffix]
        return FileResponse(_STATIC / name, headers=headers, media_type=media)


def router(services: Services) -> APIRouter:
    """Make the routes of the portal, under `/portal/`."""
    routes, api = PortalRoutes(services), open_router("portal")
    for method, path, endpoint in (
        ("GET", "/portal/enter", routes.enter),
        ("GET", "/portal/", routes.show),
        ("POST", "/portal/buy", routes.buy),
        ("POST", "/portal/card", routes.card),
        ("POST", "/portal/auto", routes.auto),
        ("GET", "/portal/leave", routes.leave),
        ("GET", "/portal/purchase/{topup_id}", routes.purchase),
        ("POST", "/portal/purchase/{topup_id}/close", routes.give_up),
        ("GET", "/portal/static/{name}", routes.asset),
    ):
        api.add_api_route(path, endpoint, methods=[method], include_in_schema=False)
    return api
