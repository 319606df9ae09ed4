"""Two servers hear of one subscription at once: the newest answer stands."""

from __future__ import annotations

import pytest

from guthaben.errors import Refused
from guthaben.services import licence_state
from guthaben.services.guthaben import Guthaben
from guthaben.services.licence_news import LicenceNews
from guthaben.services.licences import Licences, held, show
from guthaben.services.plans import PlanBook
from tests.meanwhile import Meanwhile
from tests.services.fakes import FakeGateway
from tests.services.house import NOON, OTHER, PRACTICE, USD
from tests.services.test_licences import subscription
from tests.services.test_two_servers import shown


@pytest.fixture
def sellers(
    both: tuple[Guthaben, Guthaben], gateway: FakeGateway
) -> tuple[LicenceNews, LicenceNews]:
    PlanBook(both[0].core).set("basic", 20 * USD)
    here, there = (LicenceNews(each.core.store, gateway) for each in both)
    return here, there


@pytest.mark.parametrize("place", ["owner_of", "named"])
def test_of_a_new_subscription_the_newer_answer_stands(
    both: tuple[Guthaben, Guthaben],
    sellers: tuple[LicenceNews, LicenceNews],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    place: str,
) -> None:
    here, there = sellers
    gateway.subscriptions["sub_1"] = subscription("basic")

    def it_has_ended() -> None:
        gateway.subscriptions["sub_1"] = subscription("basic", status="canceled", ended_at=NOON)
        there.ask("sub_1")

    meanwhile.at(licence_state, place, it_has_ended)
    here.ask("sub_1")
    meanwhile.end()
    assert shown("SELECT status, is_over FROM credit_subscription") == [("canceled", 1)]
    assert not show(both[0].core, PRACTICE).active


def test_an_operator_hears_that_it_was_bound_to_another_practice_meanwhile(
    both: tuple[Guthaben, Guthaben],
    sellers: tuple[LicenceNews, LicenceNews],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
) -> None:
    gateway.subscriptions["sub_1"] = subscription("basic")
    licences = Licences(both[0], gateway, livemode=True)
    meanwhile.at(licences, "_owner", lambda: sellers[1].ask("sub_1"))
    with pytest.raises(Refused, match="another practice"):
        licences.assign(OTHER, "sub_1")
    meanwhile.end()


def test_what_is_held_in_the_moment_of_its_assignment_does_not_wait_for_ever(
    both: tuple[Guthaben, Guthaben],
    sellers: tuple[LicenceNews, LicenceNews],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
) -> None:
    here, there = sellers
    gateway.subscriptions["sub_1"] = subscription("basic", metadata={})
    meanwhile.at(licence_state, "owner_of", lambda: there.assign("sub_1", PRACTICE))
    here.ask("sub_1")
    meanwhile.end()
    here.ask("sub_1")
    assert held(both[0].core) == []
    assert shown("SELECT code FROM credit_alarm WHERE cleared_at_s = 0") == []
