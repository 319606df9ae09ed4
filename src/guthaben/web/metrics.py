"""Metrics for Prometheus: what was asked, how it ended, how long it took, what waits.

Law: labels come from short fixed lists (routes, outcomes, jobs), never from a practice or a key, so
that neither secrets nor customers can be read here and the number of series stays bounded.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from guthaben.domain.licences import OVER, STATUSES
from guthaben.domain.money import float_from_nano_usd
from guthaben.services.jobs import JobState, judge
from guthaben.store.figures import Figures
from guthaben.store.jobs import JobRow
from guthaben.store.licences import LicenceFigures

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """The series of one server; a registry of its own, so that several may live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Looking a series up by its labels takes a lock and as long as counting in it.
        self._request_series: dict[tuple[str, ...], Histogram] = {}
        self._command_series: dict[tuple[str, ...], Counter] = {}
        ProcessCollector(registry=self.registry)
        self._requests = Histogram(
            "guthaben_http_request_seconds",
            "Time from a request to its answer.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._commands = Counter(
            "guthaben_commands",
            "Steps of calls and changes of credit, by outcome.",
            ("operation", "outcome"),
            registry=self.registry,
        )
        self._webhooks = Counter(
            "guthaben_webhooks",
            "Webhooks received: new, repeated, ignored or rejected.",
            ("outcome",),
            registry=self.registry,
        )
        self._totals = {
            name: Gauge(f"guthaben_{name}", about, registry=self.registry)
            for name, about in _TOTALS.items()
        }
        self._of_jobs = {
            name: Gauge(f"guthaben_job_{name}", about, ("job",), registry=self.registry)
            for name, about in _OF_JOBS.items()
        }
        self._licences = Gauge(
            "guthaben_licences",
            "Subscriptions that are not over, by their status.",
            ("status",),
            registry=self.registry,
        )
        self._job_failures = Counter(
            "guthaben_job_failures",
            "How often a background job broke.",
            ("job",),
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note one answered request."""
        labels = (method, route, str(status))
        series = self._request_series.get(labels)
        if series is None:
            series = self._request_series[labels] = self._requests.labels(*labels)
        series.observe(seconds)

    def command(self, operation: str, outcome: str) -> None:
        """Note how one command ended: ok, replayed, or the reason of its refusal."""
        labels = (operation, outcome)
        series = self._command_series.get(labels)
        if series is None:
            series = self._command_series[labels] = self._commands.labels(*labels)
        series.inc()

    def webhook(self, outcome: str) -> None:
        """Note one webhook."""
        self._webhooks.labels(outcome).inc()

    def job_ended(self, row: JobRow) -> None:
        """Note how a turn of a background job ended."""
        if row.error:
            self._job_failures.labels(row.name).inc()

    def licences(self, found: LicenceFigures) -> None:
        """Note how subscriptions stand."""
        for status in sorted(STATUSES - OVER):
            self._licences.labels(status).set(found.by_status.get(status, 0))
        self._totals["licences_unknown_plan"].set(found.unknown_plan)
        self._totals["licences_overdue"].set(found.overdue)
        self._totals["licences_held"].set(found.held)

    def render(self, figures: Figures, now_ms: int) -> bytes:
        """Write all series in Prometheus' text format."""
        totals = self._totals
        totals["practices"].set(figures.practices)
        totals["held_usd"].set(float_from_nano_usd(figures.held_nano_usd))
        totals["debt_usd"].set(float_from_nano_usd(figures.debt_nano_usd))
        totals["inbox_waiting"].set(figures.inbox_waiting)
        totals["attempts_waiting"].set(figures.attempts_waiting)
        totals["open_alarms"].set(figures.open_alarms)
        totals["inbox_dead"].set(figures.inbox_dead)
        totals["inbox_quarantined"].set(figures.inbox_quarantined)
        totals["quarantine_open"].set(figures.open_cases)
        totals["refunds_waiting"].set(figures.refunds_waiting)
        totals["reconcile_remaining"].set(figures.reconcile_remaining)
        totals["reconcile_last_end_timestamp_seconds"].set(figures.reconcile_ended_at_s)
        told = figures.outbox
        totals["outbox_waiting"].set(told.unspread + told.waiting)
        oldest_s = now_ms // 1000 - told.oldest_at_s if told.oldest_at_s else 0
        totals["outbox_oldest_age_seconds"].set(max(0, oldest_s))
        totals["outbox_dead"].set(told.dead)
        for row in figures.jobs:
            self._show_job(judge(row, now_ms))
        return generate_latest(self.registry)

    def _show_job(self, state: JobState) -> None:
        """Show a job as the database knows it: every server shows the same."""
        row = state.row
        values = {
            "last_run_timestamp_seconds": row.succeeded_at_ms / 1000,
            "last_duration_seconds": max(0, row.ended_at_ms - row.started_at_ms) / 1000,
            "lag_seconds": row.lag_ms / 1000,
            "overdue_seconds": state.overdue_s,
            "failures_in_a_row": row.failures_in_a_row,
        }
        for name, value in values.items():
            self._of_jobs[name].labels(row.name).set(value)


_TOTALS: Final = {
    "practices": "Practices in the database.",
    "held_usd": "Credit held by open reservations, in USD.",
    "debt_usd": "What practices used beyond their credit and still owe, in USD.",
    "inbox_waiting": "Webhooks stored and not applied yet.",
    "attempts_waiting": "Automatic charges without an outcome.",
    "open_alarms": "Alarms that nobody cleared.",
    "inbox_dead": "Webhooks that were given up, for a person to look at.",
    "inbox_quarantined": "Webhooks kept apart: of another mode or account, or held-back payments.",
    "quarantine_open": "Payments held back for a person to decide.",
    "refunds_waiting": "Refunds that were asked for and have no answer.",
    "reconcile_remaining": "Differences that the last reconciliation left.",
    "reconcile_last_end_timestamp_seconds": "When the last reconciliation ended; 0: never.",
    "outbox_waiting": "Notices and deliveries that wait to be sent.",
    "outbox_oldest_age_seconds": "How long the oldest of them has waited.",
    "outbox_dead": "Deliveries that were given up and not replayed.",
    "licences_unknown_plan": "Subscriptions whose plan nobody has set.",
    "licences_overdue": "Subscriptions whose renewal nobody has told for an hour.",
    "licences_held": "Subscriptions whose practice is in doubt.",
}
_OF_JOBS: Final = {
    "last_run_timestamp_seconds": "When a background job last ended well.",
    "last_duration_seconds": "How long its last turn took.",
    "lag_seconds": "How late its last turn began.",
    "overdue_seconds": "How late its next turn is, if that is too late.",
    "failures_in_a_row": "How many of its turns have failed since one ended well.",
}
