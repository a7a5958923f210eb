"""The parameters of every campaign: one pydantic model, which is also a form in Prefect's UI and a command line.

Nested models are boxes in the form. Prefect refuses at submission what JSON schema can describe; the flow checks
everything again, since people can turn that check off in the form.
"""

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.config import JsonDict
from pydantic_settings import SettingsConfigDict

from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Objective, Policy
from gpu_jobs.platforms import known_platforms
from gpu_jobs.workloads.base import Params

__all__ = ["Advanced", "CampaignParameters", "Limits", "PlatformName", "Where"]

_POLICY = Policy()
_POLICY_FIELDS = {field.name for field in fields(Policy)}
_CLOUDS: list[Any] = [row.name for row in known_platforms().values() if row.needs_bucket]
_ON_CLOUDS: JsonDict = {"properties": {"platforms": {"contains": {"enum": _CLOUDS}}}, "required": ["platforms"]}
_REMOTE = "^((gs|https)://|hub:)"
_NEEDS_BUCKET: JsonDict = {
    "if": _ON_CLOUDS,
    "then": {"properties": {"store_root": {"pattern": "^gs://"}}, "required": ["store_root"]},
}
_NEEDS_REMOTE_DATASET: JsonDict = {
    "if": {"properties": {"where": _ON_CLOUDS}, "required": ["where"]},
    "then": {"properties": {"dataset": {"pattern": _REMOTE, "items": {"pattern": _REMOTE}}}},
}
_ONLY_NEW_NEEDS_DATE: JsonDict = {
    "if": {"properties": {"only_new": {"const": True}}, "required": ["only_new"]},
    "then": {"properties": {"name": {"pattern": r"\{date\}"}}, "required": ["name"]},
}


if TYPE_CHECKING:
    PlatformName = str
else:
    PlatformName = Literal[*known_platforms()]
    """The form shows a choice; a name that is not in the table of platforms is refused."""


def _may_be_empty(schema: JsonDict) -> None:
    """Show `X | None` as a field that may be left empty, not as a choice between two types."""
    options = schema.pop("anyOf")
    assert isinstance(options, list)
    assert isinstance(options[0], dict)
    schema.pop("default", None)
    schema.update(options[0])


def _positive_or_empty(schema: JsonDict) -> None:
    _may_be_empty(schema)
    schema["exclusiveMinimum"] = 0


def _not_negative_or_empty(schema: JsonDict) -> None:
    _may_be_empty(schema)
    schema["minimum"] = 0


class Section(BaseModel):
    """A box in the form."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Where(Section):
    """Which platforms may be used, and where everything is stored."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_NEEDS_BUCKET]})

    platforms: list[PlatformName] = Field(
        default=[*_POLICY.platforms],
        title="Platforms",
        description="Where GPU workers may run; the best combination of offers is chosen. local: processes on the "
        "machine that runs the flow",
        json_schema_extra={"minItems": 1},
    )
    store_root: str = Field(
        default="./fanfold-store",
        title="Store",
        description="Folder or gs://bucket/prefix that holds campaigns, their outputs and reports; GPU clouds need a "
        "bucket",
    )


class Limits(Section):
    """How much may be used. A later flow run that resumes the campaign may set other limits."""

    max_workers: int = Field(
        default=_POLICY.max_workers,
        title="GPU workers",
        description="The most GPU workers that may run at the same time, over all platforms",
        json_schema_extra={"minimum": 1},
    )
    budget_usd: float | None = Field(
        default=None,
        title="Budget, dollars",
        description="A GPU job that could exceed it is not started; empty: no limit",
        json_schema_extra=_not_negative_or_empty,
    )
    deadline: datetime | None = Field(
        default=None,
        title="Deadline",
        description="GPU workers stop at this time, and what they have finished is published. A time without a "
        "zone is UTC. Empty: no deadline",
        json_schema_extra=_may_be_empty,
    )

    objective: Objective = Field(
        default=_POLICY.objective,
        title="Aim",
        description="What to optimise within budget and deadline. balanced: 10 % more dollars are worth 10 % less time",
    )
    gpus: list[str] = Field(
        default=[],
        title="GPU types",
        description="Such as L4 or A100; empty: all that the platforms offer",
    )

    @field_validator("deadline")
    @classmethod
    def _is_aware(cls, deadline: datetime | None) -> datetime | None:
        if deadline is None:
            return None
        return deadline.replace(tzinfo=UTC) if deadline.tzinfo is None else deadline.astimezone(UTC)


class Advanced(Section):
    """Settings that are rarely needed: the size of chunks, and how many failures are tolerated."""

    id_column: str = Field(default="id", title="Id column", description="Column of a table that holds item ids")
    chunk_weight: float | None = Field(
        default=None,
        title="Weight of a chunk",
        description="In the workload's unit (video: seconds); empty: chosen automatically. A resume keeps it",
        json_schema_extra=_positive_or_empty,
    )
    job_hours: float = Field(
        default=_POLICY.job_hours,
        gt=0,
        title="GPU job, hours",
        description="A GPU job ends at most this long after it was ordered",
    )
    part_s: float = Field(
        default=_POLICY.part_s,
        gt=0,
        title="Part, seconds",
        description="Finished rows are stored at least this often",
    )
    lease_timeout_s: float = Field(
        default=_POLICY.lease_timeout_s,
        gt=0,
        title="Lease timeout, seconds",
        description="A GPU worker that sends no heartbeat for this long loses its chunk to another one",
    )
    stall_s: float = Field(
        default=_POLICY.stall_s,
        gt=0,
        title="Stall, seconds",
        description="A model that shows no progress for this long is restarted; must exceed its longest micro-batch",
    )
    max_crashes: int = Field(
        default=_POLICY.max_crashes,
        ge=1,
        title="Crashes",
        description="After so many crashes of GPU workers a chunk is halved, and a single item is quarantined",
    )
    max_attempts: int = Field(
        default=_POLICY.max_attempts,
        ge=1,
        title="Attempts",
        description="After so many attempts at one chunk, however they ended, the campaign is closed",
    )
    max_idle_jobs: int = Field(
        default=_POLICY.max_idle_jobs,
        ge=1,
        title="Fruitless GPU jobs",
        description="After so many consecutive GPU jobs without a result, the campaign is closed",
    )
    max_wait_hours: float = Field(
        default=_POLICY.max_wait_hours,
        gt=0,
        title="Wait for capacity, hours",
        description="If no GPU worker runs and no platform has capacity for this long, the campaign is closed",
    )
    hedge_share: float = Field(
        default=_POLICY.hedge_share,
        ge=0,
        le=1,
        title="Hedge share",
        description="The share of all dollars that may be spent on second attempts at the last chunks; 0: none",
    )
    is_canary_first: bool = Field(
        default=True,
        title="Canary",
        description="One GPU worker measures the work and finds what is broken before the others start; if time is "
        "short, also a second one on a faster platform. Turn it off if one item takes long",
    )
    max_quarantined_share: float = Field(
        default=_POLICY.max_quarantined_share,
        ge=0,
        le=1,
        title="Quarantined share",
        description="The largest tolerated share of all items, from 0 to 1; above it the campaign is closed",
    )


_SHORT_FLAGS = {
    f"{section}.{flag}": flag
    for section, model in (("where", Where), ("limits", Limits), ("advanced", Advanced))
    for flag in (name.replace("_", "-") for name in model.model_fields)
}
"""Short flags: `--max-workers 2` means the same as `--limits.max-workers 2`."""


class CampaignParameters(Section):
    """A dataset, what to do with it, where, and within which limits. Each flow narrows `workload` and `params`."""

    model_config = SettingsConfigDict(
        json_schema_extra={"allOf": [_NEEDS_REMOTE_DATASET, _ONLY_NEW_NEEDS_DATE]}, cli_shortcuts=_SHORT_FLAGS
    )

    workload: ClassVar[str]
    """A built-in name or `package.module:Class`."""

    dataset: Annotated[str, Field(title="one")] | Annotated[list[str], Field(title="several")] = Field(
        title="Dataset",
        description="Folder, glob, file, gs:// prefix, https:// file or table (.parquet, .csv, .jsonl), or several",
    )
    params: Params = Field(default=Params(), title="What to do")
    where: Where = Field(default=Where(), title="Where it may run")
    limits: Limits = Field(default=Limits(), title="Limits")
    name: str = Field(
        default="",
        title="Campaign name",
        description="The same name resumes the campaign. {date} becomes the UTC date of the scheduled start. "
        "Empty: made from workload, parameters and dataset",
    )
    only_new: bool = Field(
        default=False,
        title="Only new items",
        description="Skip items that campaigns of the same name with other dates committed; needs {date} in the name",
    )
    advanced: Advanced = Field(default=Advanced(), title="Advanced")

    @field_validator("dataset")
    @classmethod
    def _is_one(cls, dataset: str | list[str]) -> str | list[str]:
        """Replace a list of one input by that input, which must then exist; the command line passes only lists."""
        return dataset[0] if isinstance(dataset, list) and len(dataset) == 1 else dataset

    @property
    def policy(self) -> Policy:
        """Return the limits of this flow run; a resume may change them."""
        asked = {**self.limits.model_dump(), **self.advanced.model_dump(include=_POLICY_FIELDS)}
        return Policy(**{**asked, "platforms": tuple(self.where.platforms), "gpus": tuple(self.limits.gpus)})

    def spec(self, scheduled_for: datetime) -> CampaignSpec:
        """Return what determines the rows, and where they are stored."""
        return CampaignSpec(
            store_root=self.where.store_root,
            dataset=self.dataset,
            workload=self.workload,
            params=self.params.model_dump(mode="json"),
            name=self.name,
            scheduled_for=scheduled_for,
            only_new=self.only_new,
            chunk_weight=self.advanced.chunk_weight,
            id_column=self.advanced.id_column,
        )
