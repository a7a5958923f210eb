"""Every object key of a campaign, built here and nowhere else. All are relative to the campaign's prefix."""

from typing import NamedTuple

PLAN = "plan.json"
JOURNAL = "journal/"
ATTEMPTS = "attempts/"
PARTS = "parts/"
SETTLED = "settled/"
WANTED = "wanted/"
HEDGES = "hedges/"
WORKERS = "workers/"
MANIFESTS = "manifests/"
CHECKPOINTS = "checkpoints/"
METRICS = "metrics/"
REPORT = "report.html"
PREVIEW = "preview/rows.parquet"
FORECAST = "forecast.json"


def items(nonce: str, number: int) -> str:
    return f"items/{nonce}/part-{number:05d}.parquet"


def sources(nonce: str) -> str:
    return f"items/{nonce}/sources.parquet"


def journal(seq: int) -> str:
    return f"{JOURNAL}{seq:08d}.json"


def bound(order: str, slot: int) -> str:
    return f"bound/{order}.{slot}.json"


def attempt(chunk_id: str, number: int) -> str:
    return f"{ATTEMPTS}{chunk_id}.{number:04d}.json"


def attempt_end(chunk_id: str, number: int) -> str:
    return f"{ATTEMPTS}{chunk_id}.{number:04d}.end.json"


class AttemptKey(NamedTuple):
    """What the key of an object under `ATTEMPTS` says."""

    chunk_id: str
    number: int
    is_end: bool
    """True: the object records how the attempt ended; False: that it began."""


def parse_attempt(key: str) -> AttemptKey:
    """Parse a key made by `attempt` or `attempt_end`."""
    chunk_id, number, *end = key.removeprefix(ATTEMPTS).removesuffix(".json").split(".")
    return AttemptKey(chunk_id, int(number), bool(end))


def parts_of(chunk_id: str) -> str:
    """Prefix of the parts of all attempts at one chunk."""
    return f"{PARTS}{chunk_id}."


def part(chunk_id: str, number: int, range_id: str) -> str:
    """There is no folder per attempt: in a local store, making a folder costs more than writing the part."""
    return f"{PARTS}{chunk_id}.{number:04d}.{range_id}.arrows"


def part_attempt(key: str) -> int:
    """Number of the attempt that wrote a part."""
    return int(key.split(".")[1])


def part_range(key: str) -> str:
    """Id of the range of items that a part holds."""
    return key.split(".")[2]


def settled(chunk_id: str) -> str:
    return f"{SETTLED}{chunk_id}.json"


def wanted(chunk_id: str) -> str:
    return f"{WANTED}{chunk_id}.json"


def hedge(chunk_id: str, number: int) -> str:
    """Key of the object that allows another attempt beside attempt `number`."""
    return f"{HEDGES}{chunk_id}.{number:04d}.json"


def worker(worker_id: str) -> str:
    return f"{WORKERS}{worker_id}.json"


def output(nonce: str, name: str) -> str:
    return f"outputs/{nonce}/{name}"


def manifest(digest: str) -> str:
    return f"{MANIFESTS}{digest}.json"


def checkpoints_of(index: int) -> str:
    """Prefix of all checkpoints of one long item."""
    return f"{CHECKPOINTS}{index:012d}/"


def checkpoint(index: int, step: int) -> str:
    """Key of the object that makes a checkpoint valid; it is created after the checkpoint's files."""
    return f"{checkpoints_of(index)}{step:08d}.json"


def checkpoint_file(index: int, step: int, nonce: str, name: str) -> str:
    return f"{checkpoints_of(index)}{step:08d}.{nonce}/{name}"


def metrics(index: int, step: int, nonce: str) -> str:
    """Key of the metrics of some steps of a long item, of which `step` is the last."""
    return f"{METRICS}{index:012d}.{step:08d}.{nonce}.parquet"


def model(index: int, nonce: str) -> str:
    """Prefix of the model that a long item has made, without a slash at its end."""
    return f"models/{index:012d}.{nonce}"


def stem(key: str) -> str:
    """The last name in a key, up to its first dot: for example a chunk's id or a worker_id."""
    return key.rpartition("/")[2].partition(".")[0]
