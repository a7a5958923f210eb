"""What RunPod's replies contain, as far as Fanfold reads them.

A field that RunPod's OpenAPI document does not require has a default, and unknown fields are ignored. A reply in any
other shape becomes an `OutcomeUnknownError` that shows the shape: the request may have been carried out.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from gpu_jobs.errors import OutcomeUnknownError

_MAX_DEPTH, _MAX_ITEMS = 3, 12
Time = Annotated[datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Created(_Reply):
    """The reply to a request that makes a pod, an endpoint or a queued job."""

    id: str = Field(min_length=1)


class Runtime(_Reply):
    """A pod's container; the document requires none of its fields."""

    uptime: float | None = Field(default=None, allow_inf_nan=False)
    """Seconds since the container was started."""


class Listed(_Reply):
    """A pod or an endpoint in a listing."""

    id: str = Field(min_length=1)
    name: str
    status: str = ""
    """Of a pod; a value that is new counts as not running yet."""
    created_at: Time | None = Field(default=None, validation_alias=AliasChoices("createdAt", "created_at"))
    runtime: Runtime | None = None

    @property
    def age(self) -> tuple[bool, datetime, str]:
        """Sorts the oldest first; one whose time of creation is not told comes last."""
        return self.created_at is None, self.created_at or datetime.max.replace(tzinfo=UTC), self.id


class Pagination(_Reply):
    has_next_page: bool | None = Field(default=None, validation_alias="hasNextPage")
    next_cursor: str | None = Field(default=None, validation_alias="nextCursor")


class Page(_Reply):
    """One page of a listing. Its rows are read one by one, since most may be of other programs."""

    rows: list[dict[str, Any]] = Field(validation_alias=AliasChoices("pods", "endpoints"))
    pagination: Pagination | None = None


Count = Annotated[int, Field(ge=0)]


class Jobs(_Reply):
    """How many jobs of an endpoint's queue are in each state."""

    in_queue: Count = Field(default=0, validation_alias="inQueue")
    in_progress: Count = Field(default=0, validation_alias="inProgress")
    completed: Count = 0
    failed: Count = 0
    retried: Count = 0


class Health(_Reply):
    jobs: Jobs


class Summary(_Reply):
    unhealthy: Count = 0


class WorkersOfEndpoint(_Reply):
    summary: Summary = Summary()


class JobStatus(_Reply):
    """The status of one queued job; `error` is whatever its handler gave."""

    status: str
    error: Any = None


_ReplyT = TypeVar("_ReplyT", bound=_Reply)


def read(model: type[_ReplyT], reply: Any, what: str) -> _ReplyT:
    """Read a reply.

    Raises:
        OutcomeUnknownError: it has another shape, which the message shows; values are left out.
    """
    try:
        return model.model_validate(reply)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'reply'}: {each['msg']}" for each in error.errors())
        raise OutcomeUnknownError(f"RunPod's {what} cannot be read ({wrong}): {shape(reply)}") from error


def named(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that have a name; one without was not made by Fanfold."""
    return [row for row in rows if isinstance(row.get("name"), str)]


def shape(reply: Any, depth: int = 0) -> str:
    """The shape of a JSON value: keys and types, no values."""
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(reply, dict):
        keys = [f"{str(key)[:30]}: {shape(reply[key], depth + 1)}" for key in list(reply)[:_MAX_ITEMS]]
        return "{" + ", ".join(keys) + "}"
    if isinstance(reply, list):
        kinds = dict.fromkeys(shape(each, depth + 1) for each in reply[:_MAX_ITEMS])
        return "[" + ", ".join(kinds) + "]"
    return "null" if reply is None else type(reply).__name__
