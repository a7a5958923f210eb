"""Run one GPU worker: `python -m gpu_jobs.worker <campaign-uri> [--order NAME --slot N --handle ID --warm]`.

Exit codes:
    0: nothing is left to lease, the campaign is closed, or this GPU worker was stopped.
    1: this container cannot do the work; the last heartbeat and the last log line say why.
    3: this GPU worker may not work: its order is unknown or over, or another container has its slot.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import uuid
from datetime import UTC, datetime

from gpu_jobs.jobs.orders import Order
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import Journal
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.validity import reason_to_end
from gpu_jobs.store import Store, open_store
from gpu_jobs.worker.supervisor import Supervisor

log = logging.getLogger("gpu_jobs.worker")
_MAY_NOT_WORK = 3
_NO_TIME_YET = datetime.fromtimestamp(0, UTC)
"""The store's clock is unknown until the first heartbeat; until then no order counts as expired."""


def main() -> int:
    arguments = _parse()
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries do not belong in a log
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    store = open_store(arguments.campaign)
    ledger, journal = Ledger(store), Journal(store)
    worker_id = uuid.uuid4().hex[:12]
    plan, state = ledger.plan(), journal.read()
    if plan is None or state.opened is None:
        log.error("there is no open campaign at %s", store.uri)
        return _MAY_NOT_WORK
    if arguments.order is not None and arguments.order not in state.orders:
        log.error("there is no order '%s' in the journal of %s", arguments.order, store.uri)
        return _MAY_NOT_WORK
    order = state.orders[arguments.order].order if arguments.order else None
    if reason := _reason_not_to_begin(store, journal, order, arguments):
        log.error("not starting: %s", reason)
        return 0 if journal.read().closed else _MAY_NOT_WORK
    policy, slot, is_warm = state.opened.policy, arguments.slot, arguments.warm
    supervisor = Supervisor(ledger, journal, plan, policy, worker_id=worker_id, order=order, slot=slot, is_warm=is_warm)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, _: supervisor.end(f"stopped by {signal.Signals(number).name}"))
    log.info("GPU worker %s starts on %s", worker_id, store.uri)
    code = supervisor.run()
    log.info("GPU worker %s ends: %s", worker_id, supervisor.ending)
    return code


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpu_jobs.worker", description="One GPU worker of a campaign.")
    parser.add_argument("campaign", help="where the campaign is: a folder or gs://bucket/prefix")
    parser.add_argument("--order", help="name of the GPU job that this GPU worker belongs to")
    parser.add_argument("--slot", type=int, default=0, help="number of this GPU worker within the GPU job, from 0")
    parser.add_argument("--handle", default="", help="the platform's id of this container; the slot is reserved for it")
    parser.add_argument("--warm", action="store_true", help="this container has served another GPU worker before")
    return parser.parse_args()


def _reason_not_to_begin(store: Store, journal: Journal, order: Order | None, arguments: argparse.Namespace) -> str:
    if order is not None:
        handle = (arguments.handle or f"{socket.gethostname()}:{os.getpid()}").encode()
        key = keys.bound(order.name, arguments.slot)
        if not store.create(key, handle):
            return f"slot {arguments.slot} of {order.name} belongs to {(store.get(key) or b'?').decode()}"
    must_end = reason_to_end(journal.read(), order.name if order else None, _NO_TIME_YET)
    return must_end.words if must_end else ""


if __name__ == "__main__":
    sys.exit(main())
