"""The route that Stripe calls: verify, store, answer; the applying happens afterwards.

Law: 200 is answered only after the event is stored durably. What was signed rightly and is not for
us is answered 200 too, or Stripe repeats it for three days; what is forged gets 400.
"""

from __future__ import annotations

import logging
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.errors import WebhookRejected
from guthaben.payments.webhook import LARGEST_BODY
from guthaben.web import models
from guthaben.web.deps import Services
from guthaben.web.problems import Problem
from guthaben.web.routing import add, answer, open_router, request_id
from guthaben.web.strict_json import read_bytes

log = logging.getLogger("guthaben.web")

WEBHOOK_PATH: Final = "/stripe/webhook"


class WebhookRoute:
    """The endpoint."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def receive(self, request: Request) -> Response:
        """Take an event of Stripe's, signed in the header Stripe-Signature."""
        services = self._services
        inbox = services.payments.inbox
        body = await read_bytes(request, LARGEST_BODY)
        signatures = request.headers.getlist("stripe-signature")
        if len(signatures) > 1:
            raise Problem(400, "webhook_rejected", "The webhook was not taken.")
        try:
            new = await services.slowly(inbox.receive, body, signatures[0] if signatures else None)
        except WebhookRejected as error:
            services.metrics.webhook("ignored" if error.authentic else "rejected")
            identity = request_id(request.scope)
            log.warning("a webhook was not taken: %s", error.reason, extra={"request_id": identity})
            if not error.authentic:
                raise
            return answer({"status": "ignored"})
        services.metrics.webhook("new" if new else "repeated")
        services.news_in_inbox()
        return answer({"status": "new" if new else "repeated"})


def router(services: Services) -> APIRouter:
    """Make the route for Stripe."""
    api = open_router("stripe")
    endpoint = WebhookRoute(services).receive
    add(api, "POST", WEBHOOK_PATH, endpoint, answers={200: models.ReceivedModel})
    return api
