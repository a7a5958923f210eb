"""What can be rented, and for how much. Read from `offers.toml`; the user's own file replaces what it names."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from gpu_jobs.errors import RefusedError
from gpu_jobs.settings import Settings

STALE_DAYS = 90
"""A price older than this is told to be stale."""
GRACE_S = 10.0
"""Between telling a GPU worker to end and killing it, where nothing else is known."""
_FIELD = "FANFOLD_OFFERS"


class OfferKey(NamedTuple):
    """What tells offers apart; of two with the same key the later in a file counts."""

    platform: str
    gpu: str
    num_gpus: int
    region: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to get GPU workers: a platform's machine at a dated price."""

    platform: str
    gpu: str
    """The platform's name of the GPU type, "cpu" for none."""
    num_gpus: int
    """GPUs of one GPU worker."""
    region: str
    mode: str
    """ "on-demand", "spot", ..."""
    usd_per_hour: float
    """Of one GPU worker, everything that is billed with it included."""
    priced_on: date
    price_source: str
    max_workers: int
    """GPU workers that one GPU job may have."""
    max_hours: float | None = None
    """A GPU job expires at the latest so long after its order, so that its platform never cuts it off; None: any."""
    max_alive: int | None = None
    """GPU workers that an account may have alive on this platform, over all GPU jobs; None: any number."""
    gpu_memory_gib: float = 0.0
    """Of one GPU; 0: unknown."""
    speed: float = 1.0
    """Work per second of one GPU of it, an L4's being 1; a prior until a campaign has measured it."""
    cold_start_p50_s: float = 0.0
    """From the order to the first item, half of the time."""
    cold_start_p90_s: float = 0.0
    granularity_s: float = 1.0
    """A GPU worker's life is billed in steps of this."""
    min_billed_s: float = 0.0
    """Billed at least, however short its life."""
    idle_s: float = 0.0
    """Billed after its last work."""
    is_start_billed: bool = True
    """False: billed from a GPU worker's first sign of life on, else from the order."""
    preemptions_per_hour: float = 0.0
    """Of one GPU worker; a prior."""
    grace_s: float = GRACE_S
    """A GPU worker that is told to end is killed after this, or later."""

    @property
    def key(self) -> OfferKey:
        return OfferKey(self.platform, self.gpu, self.num_gpus, self.region, self.mode)

    @property
    def worker_speed(self) -> float:
        """Work per second of one GPU worker, in units of one L4."""
        return self.speed * max(1, self.num_gpus)

    def job_hours(self, wanted: float) -> float:
        """How long a GPU job may last here, of what is wanted."""
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
    """Those whose GPU workers hold a model that spans so many GPUs and takes so much of their memory together.

    For a model on one GPU a CPU will do too; an offer whose memory is unknown is taken at its word.

    Raises:
        RefusedError: there are offers, but none of that size.
    """
    found = [offer for offer in offers if num_gpus == 1 or offer.num_gpus >= num_gpus]
    if offers and not found:
        raise RefusedError(
            "platforms",
            f"none offers GPU workers with the {num_gpus} GPUs that one model spans; settings decide what they offer",
        )
    largest = max((offer.gpu_memory_gib * num_gpus for offer in found), default=0.0)
    found = [each for each in found if not each.gpu_memory_gib or each.gpu_memory_gib * num_gpus >= memory_gib]
    if offers and not found:
        raise RefusedError(
            "platforms",
            f"the model takes {memory_gib:.0f} GiB on {num_gpus} GPUs, and the largest offer has {largest:.0f}; let it "
            "span more (gpus_per_model), take a lower precision, or allow other GPU types or platforms",
        )
    return found


_OFFER = TypeAdapter(Offer)
_KNOWN = {field.name for field in fields(Offer)} | {"regions", "counts"}
_NAMES = ("num_gpus", "region", "mode")
"""What an entry of the user may leave out to mean all offers of its GPU type."""


def offers_of(platform: str, *, region: str = "", gpu: str = "") -> list[Offer]:
    """The offers of one platform; "" means any region, any GPU type.

    Raises:
        RefusedError: the user's file, named by the setting `offers`, cannot be used.
    """
    found = [offer for offer in load_offers() if offer.platform == platform]
    return [offer for offer in found if region in ("", offer.region) and gpu in ("", offer.gpu)]


def load_offers(brought: Iterable[Offer] = ()) -> list[Offer]:
    """The offers of `offers.toml` and those brought, with what the user's own file says in place of both.

    Raises:
        RefusedError: the user's file cannot be used.
    """
    text = resources.files("gpu_jobs.jobs").joinpath("offers.toml").read_text()
    table = _platforms(tomllib.loads(text))
    rows = [row for name, platform in table.items() for row in _expanded(name, platform)]
    rows += map(asdict, brought)
    if own := Settings().offers:
        rows = _replaced(rows, table, Path(own).expanduser())
    return list({offer.key: offer for offer in (LOCAL, *map(_parsed, rows))}.values())


def stale_prices(offers: Iterable[Offer], today: date) -> list[str]:
    """A sentence for each platform whose oldest price is stale. Pure."""
    oldest: dict[str, Offer] = {}
    for offer in offers:
        if offer.usd_per_hour and (offer.platform not in oldest or offer.priced_on < oldest[offer.platform].priced_on):
            oldest[offer.platform] = offer
    return [
        f"the price of {name} {offer.gpu} is of {offer.priced_on}, {days} days ago: check it, and put today's into the "
        f"file that {_FIELD} names"
        for name, offer in oldest.items()
        if (days := (today - offer.priced_on).days) > STALE_DAYS
    ]


def offers_table(offers: Sequence[Offer], today: date) -> str:
    """Offers as a table for a terminal, the best price for its work first within a platform; stale ones marked *."""
    header = ("platform", "GPU", "region", "mode", "$/h", "$/h of an L4's work", "cold start", "priced on", "source")
    rows = [
        (
            offer.platform,
            offer._gpus,  # noqa: SLF001 - ours
            offer.region,
            offer.mode,
            f"{offer.usd_per_hour:.2f}",
            f"{offer.usd_per_hour / offer.worker_speed:.2f}",
            f"{offer.cold_start_p50_s:.0f}-{offer.cold_start_p90_s:.0f} s",
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
    """One row for each region and count of each GPU type; prices are of one GPU, and grow with their number."""
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
    """Rows with what the user's file says of them, and those that only it has."""
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
