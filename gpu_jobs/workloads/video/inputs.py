"""Reads the videos of a dataset for its split; one that cannot be used costs no other anything."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from gpu_jobs.dataset.sources import Source, input_cache, local_copy
from gpu_jobs.errors import FanfoldError, ItemError, StoreUnavailableError
from gpu_jobs.workloads.video.decode import Probe, probe

_PROBES_AT_ONCE = 8


def probe_all(sources: Iterable[Source]) -> Iterator[tuple[Source, Probe | str]]:
    """Yield the sources in order, each with its probe or why it has none.

    Some are downloaded and probed side by side. Raises `StoreUnavailableError` if Google Cloud Storage does not answer.
    """
    with ThreadPoolExecutor(_PROBES_AT_ONCE, "probe") as threads:
        waiting: deque[tuple[Source, Future[Probe | str]]] = deque()
        for source in sources:
            waiting.append((source, threads.submit(_probe_source, source)))
            if len(waiting) == _PROBES_AT_ONCE:
                first, found = waiting.popleft()
                yield first, found.result()
        for first, found in waiting:
            yield first, found.result()


def _probe_source(source: Source) -> Probe | str:
    """Probe a source, or return why it cannot be used."""
    if not source.uri or source.problem:
        return source.problem or f"row '{source.id}' names no file"
    try:
        return probe(local_copy(source.uri, input_cache(), expected=source.fingerprint))
    except ItemError as error:
        return str(error)
    except StoreUnavailableError as error:
        if source.uri.startswith("gs://"):
            raise
        return str(error)
    except (FanfoldError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - the libraries may raise anything about an odd file
        return f"'{source.uri}' cannot be read: {type(error).__name__}: {error}"
