"""What every emulator offers to a rehearsal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A running emulator: what leads the platform's own client to it, and what it would have charged."""

    environ: Mapping[str, str]
    bill: Callable[[], str]
    """A few lines for a person, any time."""
