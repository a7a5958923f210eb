"""One campaign as its owner sees it: open it, run it to its end, look at it. The loop: observe, decide, act.

The loop keeps nothing that matters: kill it anywhere, run it again, and it goes on from the store. Two of them on one
campaign are safe; the one that opened it last rules, and the other gives way at its next look.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from gpu_jobs.background import Background
from gpu_jobs.dispatch import CampaignView, CloseCampaign, Decision, JobView, StartJob, StopJob, decide
from gpu_jobs.errors import (
    NoCapacityError,
    OutcomeUnknownError,
    PlatformError,
    RefusedError,
    RejectedError,
    SupersededError,
)
from gpu_jobs.jobs import Handle, Observation, Order, Phase, Policy
from gpu_jobs.journal import Closed, Ended, Journal, JournalState, Opened, Ordered
from gpu_jobs.ledger import Heartbeat, Ledger, Plan
from gpu_jobs.platforms import open_platform
from gpu_jobs.platforms.base import Platform, start_once
from gpu_jobs.split import CampaignSpec, split
from gpu_jobs.store import Store, is_local, open_store
from gpu_jobs.survey import Survey
