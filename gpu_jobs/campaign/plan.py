"""Split a dataset into a campaign's plan. Items are written first; creating `plan.json` is the commit point."""

import hashlib
import io
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import polars as pl

from gpu_jobs.campaign.chunk_size import ChunkingLimits, first_chunk_boundaries
from gpu_jobs.dataset.sources import Source, read_sources
from gpu_jobs.errors import NothingNewError, RefusedError, WorkloadImportError
from gpu_jobs.ledger import keys, rows
from gpu_jobs.ledger.items import ItemsReader, write_items
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Committed, Plan
from gpu_jobs.store import Store, campaign_names, open_store
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.base import BaseWorkload, LongWorkload

_MAX_NAMED = 3
_PACKAGES = ("fanfold", "polars", "torch", "transformers", "av")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSpec:
    """What a caller requests. All of it except `store_root` and `chunk_weight` determines the rows."""

    store_root: str
    """Folder or `gs://bucket/prefix` that holds campaigns."""
    dataset: str | Sequence[str]
    workload: str
    params: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    """The campaign's name, which may contain `{date}`; empty: made from workload, parameters and dataset listing."""
    scheduled_for: datetime | None = None
    """The time whose date replaces `{date}` in the name."""
    only_new: bool = False
    """Skip items that earlier campaigns of the same name (with other dates) have committed."""
    chunk_weight: float | None = None
    """Weight of a chunk, in the workload's unit; None: chosen automatically."""
    id_column: str = "id"
    """Column of a table that holds item ids."""


def split(spec: CampaignSpec, limits: ChunkingLimits) -> tuple[Store, Plan]:
    """Find the campaign that `spec` describes, or create it.

    Raises:
        RefusedError: the dataset is empty or has repeated ids, the workload or a parameter is wrong, or a campaign of
            this name exists with another workload, parameters or dataset.
    """
    workload = _load(spec)
    sources = list(_sources(spec, workload))
    digest = _listing_digest(sources)
    store = open_store(f"{spec.store_root.rstrip('/')}/{campaign_name(spec, digest)}")
    ledger = Ledger(store)
    plan = ledger.plan()
    if plan is None:
        plan = _create(spec, workload, sources, ledger, limits)
    _refuse_another(spec, plan, sources, digest, store)
    return store, plan


def campaign_name(spec: CampaignSpec, dataset_digest: str) -> str:
    """Return the name of a campaign, which is its folder under the store root."""
    if not spec.name:
        label = re.sub(r"[^a-z0-9]+", "-", spec.workload.rpartition(":")[2].lower()).strip("-")[:40]
        return f"{label}-{_digest([(_canonical(spec.params), dataset_digest)])[:12]}"
    if "{date}" in spec.name and spec.scheduled_for is None:
        raise RefusedError("name", "it contains {date}, but the flow run has no scheduled time")
    name = spec.name.replace("{date}", f"{spec.scheduled_for:%Y-%m-%d}" if spec.scheduled_for else "")
    if not _NAME.fullmatch(name):
        raise RefusedError("name", f"'{name}' must match {_NAME.pattern}")
    return name


def _load(spec: CampaignSpec) -> BaseWorkload:
    try:
        return load_workload(spec.workload, spec.params)
    except WorkloadImportError as error:
        raise RefusedError("workload", str(error)) from error


def _sources(spec: CampaignSpec, workload: BaseWorkload) -> Iterator[Source]:
    return read_sources(
        spec.dataset, suffixes=workload.suffixes, id_column=spec.id_column, needs_files=workload.needs_files
    )


def _create(
    spec: CampaignSpec, workload: BaseWorkload, sources: Sequence[Source], ledger: Ledger, limits: ChunkingLimits
) -> Plan:
    nonce = uuid.uuid4().hex[:12]
    known = _known_before(spec, workload, ledger.store) if spec.only_new else _Known()
    unread = [source for source in sources if (source.id, source.fingerprint) not in known.sources]
    items = (dict(item) for item in workload.items(unread) if (item["item"], item["fingerprint"]) not in known.items)
    written = write_items(ledger.store, nonce, items)
    if not written.weights:
        if known.items:
            raise NothingNewError(f"earlier campaigns of '{spec.name}' have committed every item of {spec.dataset!r}")
        raise RefusedError("dataset", f"{spec.dataset!r} has no items")
    total = sum(written.weights)
    if isinstance(workload, LongWorkload):
        boundaries = list(range(len(written.weights) + 1))
        chunk_reason = "each item is a chunk, since one item takes long"
    else:
        boundaries, chunk_reason = first_chunk_boundaries(written.weights, workload, limits, asked=spec.chunk_weight)
    plan = Plan(
        workload=spec.workload,
        params=workload.params.model_dump(mode="json"),
        dataset=spec.dataset if isinstance(spec.dataset, str) else f"{len(spec.dataset)} inputs",
        dataset_digest=_listing_digest(sources),
        sources=_write_sources(ledger.store, nonce, sources),
        items=written.files,
        num_items=len(written.weights),
        total_weight=total,
        chunk_boundaries=tuple(boundaries),
        chunk_reason=chunk_reason,
        versions=_versions(),
        created_at=datetime.now().astimezone(),
    )
    ledger.create_plan(plan)
    created = ledger.plan()
    assert created is not None
    return created  # another flow run's plan, if that one was faster


def _write_sources(store: Store, nonce: str, sources: Sequence[Source]) -> str:
    """Store the listing, so that a later one can be compared with it."""
    buffer = io.BytesIO()
    listing = {"id": [source.id for source in sources], "fingerprint": [source.fingerprint for source in sources]}
    pl.DataFrame(listing, schema={"id": pl.String, "fingerprint": pl.String}).write_parquet(buffer)
    key = keys.sources(nonce)
    store.create(key, buffer.getvalue())
    return key


def _refuse_another(spec: CampaignSpec, plan: Plan, sources: Sequence[Source], digest: str, store: Store) -> None:
    where = f"the campaign at {store.uri} has"
    other = "; use another name or the same input"
    if plan.workload != spec.workload:
        raise RefusedError("workload", f"{where} workload '{plan.workload}', not '{spec.workload}'{other}")
    asked = _load(spec).params.model_dump(mode="json")
    if plan.params != asked:
        names = sorted(name for name in {*plan.params, *asked} if plan.params.get(name) != asked.get(name))
        change = ", ".join(f"{key}={plan.params.get(key)!r}, not {asked.get(key)!r}" for key in names)
        raise RefusedError("params", f"{where} {change}{other}")
    if plan.dataset_digest != digest:
        raise RefusedError("dataset", f"{where} another listing: {_listing_change(plan, sources, store)}{other}")


def _listing_change(plan: Plan, sources: Sequence[Source], store: Store) -> str:
    body = store.get(plan.sources) or b""
    before: dict[str, str] = dict(pl.read_parquet(io.BytesIO(body)).iter_rows())
    now = {source.id: source.fingerprint for source in sources}
    kinds = {
        "added": [key for key in now if key not in before],
        "removed": [key for key in before if key not in now],
        "changed": [key for key in now if key in before and now[key] != before[key]],
    }
    changes = [f"{len(ids)} {kind} ({', '.join(ids[:_MAX_NAMED])}…)" for kind, ids in kinds.items() if ids]
    return "; ".join(changes) or "the same inputs in another order"


@dataclass(slots=True)
class _Known:
    """Ids and fingerprints of what earlier campaigns with the same name template have committed."""

    items: set[tuple[str, str]] = field(default_factory=set)
    sources: set[tuple[str, str]] = field(default_factory=set)
    """Those all of whose items are committed, so that nobody needs to read them again."""


def _known_before(spec: CampaignSpec, workload: BaseWorkload, store: Store) -> _Known:
    if "{date}" not in spec.name:
        raise RefusedError("only_new", "it needs a name with {date}, which is how earlier campaigns are found")
    root = open_store(spec.store_root)
    pattern = re.compile(re.escape(spec.name).replace(r"\{date\}", r"\d{4}-\d\d-\d\d"))
    known, params = _Known(), workload.params.model_dump(mode="json")
    for name in campaign_names(root, spec.name.partition("{")[0]):
        earlier = open_store(f"{spec.store_root.rstrip('/')}/{name}")
        if pattern.fullmatch(name) and earlier.uri != store.uri and (plan := Ledger(earlier).plan()):
            is_same_work = plan.workload == spec.workload and plan.params == params
            _add_committed(known, earlier, plan, workload.source_column if is_same_work else "")
    return known


def _add_committed(known: _Known, store: Store, plan: Plan, source_column: str) -> None:
    """Add the items of one campaign that have rows or are known to be empty, but not those that failed."""
    done, open_sources, all_sources = _committed(store), set[tuple[str, str]](), set[tuple[str, str]]()
    rows_of_items = (item for frame in ItemsReader(store, plan).frames() for item in frame.iter_rows(named=True))
    for index, item in enumerate(rows_of_items):
        source = (item.get(source_column, ""), item["fingerprint"])
        all_sources.add(source)
        if index in done:
            known.items.add((item["item"], item["fingerprint"]))
        else:
            open_sources.add(source)
    known.sources |= {source for source in all_sources - open_sources if source[0]}


def _committed(store: Store) -> set[int]:
    """Return the positions of the items of the campaign in `store` that are committed and did not fail."""
    ledger, done = Ledger(store), set[int]()
    for entry in store.list(keys.SETTLED):
        settlement = ledger.settlement(Chunk.parse(keys.stem(entry.key)))
        for tile in settlement.tiles if settlement else ():
            if isinstance(tile, Committed):
                failed = rows.failed_items(store.get(tile.part) or b"") if tile.num_failed else ()
                done |= set(range(*tile.range)).difference(failed)
    return done


def _digest(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a digest of pairs of strings. Lengths count: ("a", "bc") and ("ab", "c") differ."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(pair).encode())
    return digest.hexdigest()


def _listing_digest(sources: Sequence[Source]) -> str:
    return _digest((source.id, source.fingerprint) for source in sources)


def _canonical(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
