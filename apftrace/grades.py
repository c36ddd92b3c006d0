"""The grades of a finding, for all that list, sort, count or ask for them: how severe it is, and how sure."""

from __future__ import annotations

SEVERITIES = ("error", "warning", "info")
"""The worst first."""

CONFIDENCES = ("proved", "likely", "possible")
"""The strongest first."""

NEVER = "never"
"""In place of a severity: no finding fails the run."""


def at_least(severity: str) -> tuple[str, ...]:
    """Return the severities from ``severity`` upwards; none for NEVER."""
    return SEVERITIES[: SEVERITIES.index(severity) + 1] if severity != NEVER else ()
