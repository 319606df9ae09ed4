"""The house of the services' tests, for faults."""

from tests.services.conftest import build, house

__all__ = ["build", "house"]
