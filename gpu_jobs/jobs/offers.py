"""What can be rented, and for how much. Read from `offers.toml`; entries of the user's own file replace these."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from gpu_jobs.durations import duration
from gpu_jobs.errors import RefusedError
from gpu_jobs.settings import Settings

STALE_DAYS = 90
"""A price older than this is reported as stale."""
GRACE_S = 10.0
"""Default of `Offer.grace_s`."""
_FIELD = "FANFOLD_OFFERS"


class OfferKey(NamedTuple):
    """What identifies an offer; of two offers with the same key, the later one in a file is used."""

    platform: str
    gpu: str
    num_gpus: int
    region: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to get GPU workers: a machine type of a platform at a dated price."""

    platform: str
    gpu: str
    """The platform's name for the GPU type; "cpu" means no GPU."""
    num_gpus: int
    """Number of GPUs that one GPU worker has."""
    region: str
    mode: str
    """How the platform rents it: "on-demand", "spot", ..."""
    usd_per_hour: float
    """Price of one GPU worker, including everything that is billed with it (CPUs, memory)."""
    priced_on: date
    price_source: str
    max_workers: int
    """Maximum number of GPU workers in one GPU job."""
    max_hours: float | None = None
    """A GPU job expires at most this long after its order, so that the platform never ends it by force; None means that
    there is no limit."""
    max_alive: int | None = None
    """Maximum number of GPU workers that an account may have alive on this platform, over all its GPU jobs; None means
    unlimited."""
    gpu_memory_gib: float = 0.0
    """Memory of one GPU; 0 means unknown."""
    speed: float = 1.0
    """Expected speed of one of its GPUs relative to an L4, which is 1; replaced by what campaigns measure."""
    cuda: Literal["12.6", "13.0"] = "12.6"
    """CUDA version of the build of torch that the GPU needs; the host's driver must know it."""
    cold_start_p50_s: float = 0.0
    """Median time from the order to the first item."""
    cold_start_p90_s: float = 0.0
    """90th percentile of the same time."""
    granularity_s: float = 1.0
    """The lifetime of a GPU worker is rounded up to a multiple of this for billing."""
    min_billed_s: float = 0.0
    """Minimum that is billed for a GPU worker, however short its lifetime."""
    idle_s: float = 0.0
    """Idle time that is billed after a GPU worker's last work."""
    is_start_billed: bool = True
    """Whether a GPU worker is billed from its order on; if not, it is billed from its first heartbeat on."""
    preemptions_per_hour: float = 0.0
    """Expected preemptions per hour of one GPU worker; replaced by what campaigns measure."""
    grace_s: float = GRACE_S
    """The minimum time between the signal to stop a GPU worker and its kill."""

    @property
    def key(self) -> OfferKey:
        return OfferKey(self.platform, self.gpu, self.num_gpus, self.region, self.mode)

    @property
    def worker_speed(self) -> float:
        """Expected speed of one GPU worker relative to a GPU worker with one L4."""
        return self.speed * max(1, self.num_gpus)

    def image(self, name: str) -> str:
        """Return the container image for this GPU: `{cuda}` in the name becomes `cu126` or `cu130`."""
        return name.replace("{cuda}", f"cu{self.cuda.replace('.', '')}")

    def job_hours(self, wanted: float) -> float:
        """Return the duration that a GPU job may have here: `wanted`, or `max_hours` if that is less."""
        return wanted if self.max_hours is None else min(wanted, self.max_hours)

    @property
    def machine(self) -> str:
        """GPU, region and mode, for people; the platform is named beside it."""
        return f"{self._gpus}, {self.region}, {self.mode}" if self.num_gpus else self._gpus

    @property
    def _gpus(self) -> str:
        if not self.num_gpus:
            return "no GPU"
        return self.gpu if self.num_gpus == 1 else f"{self.num_gpus} \N{MULTIPLICATION SIGN} {self.gpu}"


def big_enough(offers: Sequence[Offer], num_gpus: int, memory_gib: float) -> list[Offer]:
    """Return the offers whose GPU workers can hold a model that spans `num_gpus` GPUs and needs `memory_gib` in all.

    A CPU is accepted for a model on one GPU, and so is an offer whose memory is unknown.

    Raises:
        RefusedError: There are offers, but none is large enough.
    """
    found = [offer for offer in offers if num_gpus == 1 or offer.num_gpus >= num_gpus]
    if offers and not found:
        raise RefusedError(
            "platforms",
            f"no platform offers GPU workers with the {num_gpus} GPUs that one model spans; the settings decide what "
            "platforms offer",
        )
    largest = max((offer.gpu_memory_gib * num_gpus for offer in found), default=0.0)
    found = [each for each in found if not each.gpu_memory_gib or each.gpu_memory_gib * num_gpus >= memory_gib]
    if offers and not found:
        raise RefusedError(
            "platforms",
            f"the model needs {memory_gib:.0f} GiB on {num_gpus} GPUs, but the largest offer has {largest:.0f} GiB; "
            "let it span more GPUs (gpus_per_model), use a lower precision, or allow other GPU types or platforms",
        )
    return found


_OFFER = TypeAdapter(Offer)
_KNOWN = {field.name for field in fields(Offer)} | {"regions", "counts"}
_NAMES = ("num_gpus", "region", "mode")
"""Fields that an entry of the user's file may omit; it then applies to all their values."""


def offers_of(platform: str, *, region: str = "", gpu: str = "") -> list[Offer]:
    """Return the offers of one platform; "" means any region or any GPU type.

    Raises:
        RefusedError: The user's file, named by the setting `offers`, cannot be used.
    """
    found = [offer for offer in load_offers() if offer.platform == platform]
    return [offer for offer in found if region in ("", offer.region) and gpu in ("", offer.gpu)]


def load_offers(brought: Iterable[Offer] = ()) -> list[Offer]:
    """Return the offers of `offers.toml` and those brought; the user's own file replaces entries of both.

    Raises:
        RefusedError: The user's file cannot be used.
    """
    text = resources.files("gpu_jobs.jobs").joinpath("offers.toml").read_text()
    table = _platforms(tomllib.loads(text))
    rows = [row for name, platform in table.items() for row in _expanded(name, platform)]
    rows += map(asdict, brought)
    if own := Settings().offers:
        rows = _replaced(rows, table, Path(own).expanduser())
    return list({offer.key: offer for offer in (LOCAL, *map(_parsed, rows))}.values())


def stale_prices(offers: Iterable[Offer], today: date) -> list[str]:
    """Return a sentence for each platform whose oldest price is stale. Pure."""
    oldest: dict[str, Offer] = {}
    for offer in offers:
        if offer.usd_per_hour and (offer.platform not in oldest or offer.priced_on < oldest[offer.platform].priced_on):
            oldest[offer.platform] = offer
    return [
        f"the price of {name} {offer.gpu} is {days} days old ({offer.priced_on}); update it in the file that {_FIELD} "
        "names"
        for name, offer in oldest.items()
        if (days := (today - offer.priced_on).days) > STALE_DAYS
    ]


def offers_table(offers: Sequence[Offer], today: date) -> str:
    """Return offers as a table for a terminal: by platform, then by price per work; stale prices are marked with *."""
    header = ("platform", "GPU", "region", "mode", "$/h", "$/h of an L4's work", "cold start", "priced on", "source")
    rows = [
        (
            offer.platform,
            offer._gpus,  # noqa: SLF001 - ours
            offer.region,
            offer.mode,
            f"{offer.usd_per_hour:.2f}",
            f"{offer.usd_per_hour / offer.worker_speed:.2f}",
            f"{duration(offer.cold_start_p50_s)} to {duration(offer.cold_start_p90_s)}",
            f"{offer.priced_on}{'*' if stale_prices([offer], today) else ''}",
            offer.price_source,
        )
        for offer in sorted(offers, key=lambda each: (each.platform, each.usd_per_hour / each.worker_speed))
    ]
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join([*(line.rstrip() for line in lines), *stale_prices(offers, today)])


def _platforms(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(table.get("platforms", {}))


def _expanded(name: str, platform: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each GPU type, region and GPU count; the file's prices are for one GPU, and are multiplied."""
    shared = {key: value for key, value in platform.items() if key != "gpus"}
    rows = []
    for entry in platform.get("gpus", ()):
        row = {"platform": name, **shared, **entry}
        counts, regions = row.pop("counts", [row.pop("num_gpus", 1)]), row.pop("regions", [row.get("region", "any")])
        for count, region in product(counts, regions):
            usd = row.get("usd_per_hour")
            priced = {} if usd is None else {"usd_per_hour": usd * max(1, count)}
            rows.append({**row, "num_gpus": count, "region": region, **priced})
    return rows


def _replaced(rows: list[dict[str, Any]], ours: Mapping[str, Any], own: Path) -> list[dict[str, Any]]:
    """Return the rows with the values of the user's file, and with the offers that only that file has."""
    try:
        table = _platforms(tomllib.loads(own.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RefusedError(_FIELD, f"{own} cannot be read: {error}") from error
    for name, platform in table.items():
        shared = {key: value for key, value in platform.items() if key != "gpus"}
        _refuse_unknown(own, name, shared)
        rows = [{**row, **shared} if row["platform"] == name else row for row in rows]
        for entry in platform.get("gpus", ()):
            _refuse_unknown(own, name, entry)
            same = [row for row in rows if _is_meant(row, name, entry)]
            for row in same:
                row.update(_for_count(entry, row["num_gpus"]))
            if not same:
                rows += _expanded(name, {**ours.get(name, {}), **shared, "gpus": [entry]})
    return rows


def _is_meant(row: Mapping[str, Any], platform: str, entry: Mapping[str, Any]) -> bool:
    if (row["platform"], row["gpu"]) != (platform, entry.get("gpu")):
        return False
    counts, regions = entry.get("counts", [row["num_gpus"]]), entry.get("regions", [row["region"]])
    names = all(entry.get(name, row[name]) == row[name] for name in _NAMES)
    return names and row["num_gpus"] in counts and row["region"] in regions


def _for_count(entry: Mapping[str, Any], num_gpus: int) -> dict[str, Any]:
    changes = {key: value for key, value in entry.items() if key not in ("regions", "counts")}
    if "usd_per_hour" in changes:
        changes["usd_per_hour"] *= max(1, num_gpus)
    return changes


def _refuse_unknown(own: Path, platform: str, entry: Mapping[str, Any]) -> None:
    if unknown := sorted(set(entry) - _KNOWN):
        raise RefusedError(_FIELD, f"{own}: platforms.{platform} has no field '{unknown[0]}'; see Offer in offers.py")


def _parsed(row: Mapping[str, Any]) -> Offer:
    try:
        return _OFFER.validate_python(row)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise RefusedError(_FIELD, f"{row['platform']} {row.get('gpu', '?')}: {where}: {problem['msg']}") from error


LOCAL = Offer(
    platform="local",
    gpu="cpu",
    num_gpus=0,
    region="here",
    mode="on-demand",
    usd_per_hour=0.0,
    priced_on=date(2026, 11, 24),
    price_source="this machine is already paid for",
    max_workers=64,
)
