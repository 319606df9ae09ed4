"""Which installation made a purchase, where several share one account at the provider.

Law: an installation with a name marks what it makes, and leaves what bears another's mark alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from guthaben import config
from guthaben.payments.gateway import METADATA_INSTALLATION


def made_here() -> dict[str, str]:
    """Give the mark as metadata; nothing where this installation has no name."""
    name = config.installation()
    return {METADATA_INSTALLATION: name} if name else {}


def made_elsewhere(metadata: Mapping[str, str]) -> bool:
    """Tell whether metadata bears the mark of another installation, or lacks ours."""
    return metadata.get(METADATA_INSTALLATION, "") != config.installation()
