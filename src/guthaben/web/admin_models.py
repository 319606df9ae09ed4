"""Models of answers to operators, for the description only; see `models`."""

from __future__ import annotations

from guthaben.web.models import Model


class CapModel(Model):
    """What a key or a device may use; null is no cap, 0 no limit of requests."""

    subject: str
    day_usd: str | None
    month_usd: str | None
    left_usd: str | None
    per_minute: int
    at_once: int


class CapsModel(Model):
    """The caps of a practice."""

    practice_id: str
    caps: list[CapModel]


class AlarmModel(Model):
    """Something that an operator should look at."""

    alarm_no: int
    code: str
    practice_id: str | None
    subject: str
    raised_at_s: int


class AlarmsModel(Model):
    """Alarms that nobody cleared, newest first."""

    alarms: list[AlarmModel]
