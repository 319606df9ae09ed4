"""Models: the answers of the API, for its description and for the tests that hold it to them.

Law: nothing is parsed or made with these; the views in `views` make the answers, and a test
compares every answer with its model. Amounts are decimal strings, instants seconds since 1970.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Usd = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{2,9}$", examples=["10.00"])]
Chf = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{2}$", examples=["30.00"])]
Status = Literal["reserved", "settled", "released", "expired", "settled_late"]


class Model(BaseModel):
    """An answer; no field beyond the named ones."""

    model_config = ConfigDict(extra="forbid")


class ProblemModel(BaseModel):
    """Any error, after RFC 9457; some have more fields, such as `available_usd`."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str = Field(examples=["urn:guthaben:problem:insufficient_credit"])
    title: str = Field(examples=["Not enough credit"])
    status: int = Field(examples=[402])
    detail: str
    code: str = Field(description="Stable, for programs.", examples=["insufficient_credit"])
    request_id: str


class CallModel(Model):
    """One AI call."""

    id: str = Field(examples=["call_17_k3v9q2m7x5c8w4zt"])
    practice_id: str
    key: str
    status: Status
    reserved_usd: Usd
    cost_usd: Usd
    created_at_s: int
    expires_at_s: int
    ended_at_s: int | None
    model: str
    operation_type: str
    input_tokens: int
    output_tokens: int
    total_tokens: int
    audio_ms: int
    reference: str
    device_id: str
    replayed: bool = Field(description="The same request was answered before.")
    applied: bool = Field(description="False: an earlier step had already decided.")


class CallsModel(Model):
    """A page of calls, newest first."""

    calls: list[CallModel]
    next_before: str | None


class PeriodModel(Model):
    """The period whose allowance counts, half-open."""

    license: str
    start_s: int
    end_s: int
    allowance_usd: Usd


class BalanceModel(Model):
    """What a practice has now."""

    practice_id: str
    available_usd: Usd = Field(description="What may be reserved now.")
    held_usd: Usd
    debt_usd: Usd
    allowance_usd: Usd = Field(description="What is left of the period's allowance.")
    credit_usd: Usd = Field(description="Bought and promotional credit that may be reserved.")
    period: PeriodModel


class EntryModel(Model):
    """One change of credit."""

    seq: int
    at_s: int
    what: str = Field(examples=["settle"])
    source: str = Field(examples=["allowance"])
    target: str = Field(examples=["used"])
    amount_usd: Usd
    grant_no: int | None
    call_id: str | None
    event_no: int | None
    reverses_seq: int | None


class StatementModel(Model):
    """A page of changes, newest first."""

    entries: list[EntryModel]
    next_before: int | None


class SubscriptionModel(Model):
    """One subscription of a practice."""

    reference: str = Field(description="The provider's id, masked.", examples=["sub_…4Nyp"])
    status: str = Field(description="The provider's word.", examples=["active"])
    leads: bool = Field(description="It is the licence that counts.")
    plan_known: bool = Field(description="False: an operator has to say what its plan includes.")
    plans: list[str] = Field(examples=[["basic_monthly"]])
    quantity: int
    period_start_s: int
    period_end_s: int
    period_allowance_usd: Usd = Field(description="What this period includes.")
    next_allowance_usd: Usd = Field(description="What the following periods include.")
    ends_at_s: int | None


class LicenseModel(Model):
    """A practice's licence as it counts now."""

    practice_id: str
    license: str
    source: Literal["none", "told", "subscription"]
    active: bool
    period_start_s: int
    period_end_s: int
    allowance_usd: Usd = Field(description="What this period includes.")
    provisional: bool = Field(description="The renewal has not been told yet.")
    ends_at_s: int | None
    subscriptions: list[SubscriptionModel]


class LicenseCheckoutModel(Model):
    """A licence that is being bought."""

    checkout_url: str
    order_id: str


class PlanModel(Model):
    """What a plan includes in periods that begin at `from_s` or later."""

    lookup_key: str
    allowance_usd: Usd
    trial_usd: Usd | None = Field(description="In a trial; null: the same as otherwise.")
    from_s: int


class PlansModel(Model):
    """The plans as they count now."""

    plans: list[PlanModel]


class HeldModel(Model):
    """A subscription whose practice is in doubt."""

    held_no: int
    reference: str = Field(description="The provider's id, masked.")
    reason: str = Field(examples=["practice_mismatch"])
    named: str = Field(description="Whom it names.")
    held_at_s: int


class HeldsModel(Model):
    """Subscriptions that wait for an operator."""

    held: list[HeldModel]


class TopupModel(Model):
    """One purchase, attempt, refund or adjustment; the provider's ids are masked."""

    event_no: int
    topup_id: str
    event_type: str = Field(examples=["topup_purchase"])
    status: str = Field(examples=["succeeded"])
    amount_usd: Usd
    price_chf: Chf | None
    currency: str
    at_s: int
    reference: str | None
    session_reference: str | None
    clawed_back_usd: Usd
    reason: str


class TopupsModel(Model):
    """A page of top-ups and what became of them, newest first."""

    topups: list[TopupModel]
    next_before: int | None


class CheckoutModel(Model):
    """Where to send the customer."""

    checkout_url: str
    topup_id: str | None


class UsageLineModel(Model):
    """What one day, or one model, used."""

    name: str
    calls: int
    cost_usd: Usd


class UsageModel(Model):
    """Usage of the last days; `cut` tells that only the newest 50,000 calls were counted."""

    days: list[UsageLineModel]
    models: list[UsageLineModel]
    calls: int
    cost_usd: Usd
    cut: bool


class PortalModel(Model):
    """A link into the practice's own pages."""

    url: str
    valid_s: int


class LanguageModel(Model):
    """How the practice is spoken to."""

    language: Literal["de", "fr", "it", "en"]


class PracticeModel(Model):
    """One practice in a list."""

    practice_id: str
    status: Literal["active", "frozen", "closed"]
    mode: Literal["live", "test"]
    held_usd: Usd
    debt_usd: Usd
    credit_usd: Usd
    license: str
    last_seq: int


class PracticesModel(Model):
    """A page of practices, in the order of their ids."""

    practices: list[PracticeModel]
    next_after: str | None


class GrantModel(Model):
    """What giving or correcting credit did."""

    practice_id: str
    grant_no: int | None
    replayed: bool


class DoneModel(Model):
    """What was set is in force."""

    practice_id: str
    done: Literal[True]


class ProblemFoundModel(Model):
    """Something that is not as the journal says."""

    practice_id: str
    problem: str


class VerifyModel(Model):
    """The result of replaying the journal."""

    ok: bool
    practices: int
    transfers: int
    problems: list[ProblemFoundModel]


class ReceivedModel(Model):
    """What became of a webhook."""

    status: Literal["new", "repeated", "ignored"]


class HealthModel(Model):
    """Whether the server works."""

    status: Literal["ok"]


class ContactModel(Model):
    """An e-mail address that notices go to, masked."""

    contact_id: str
    masked: str = Field(examples=["o…@praxis.example"])
    language: Literal["de", "fr", "it", "en"]
    unsubscribed: list[str]
    created_at_s: int


class ContactsModel(Model):
    """The addresses of a practice."""

    contacts: list[ContactModel]


class EndpointModel(Model):
    """Where signed webhooks go."""

    endpoint_id: str
    url: str
    kinds: list[str]
    created_at_s: int
    disabled_at_s: int | None
    disabled_reason: str
    failing_since_s: int | None


class NewEndpointModel(EndpointModel):
    """A new endpoint; its secret is shown this once."""

    secret: str


class EndpointsModel(Model):
    """The endpoints of a practice."""

    endpoints: list[EndpointModel]


class SecretModel(Model):
    """A new secret of an endpoint, shown this once."""

    endpoint_id: str
    secret: str


class TriedModel(Model):
    """What came of a test; `reason` is a short code."""

    endpoint_id: str
    taken: bool
    reason: str


class NoticeModel(Model):
    """Something that was told, and how many of its deliveries stand how."""

    id: str
    kind: str
    told_at_s: int
    deliveries: dict[str, int]


class NoticesModel(Model):
    """What a practice was told, newest first."""

    notices: list[NoticeModel]
