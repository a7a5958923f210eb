"""Rules 1, 2, 3 and 6 of the ledger under every interleaving of GPU workers that we can think of.

A few GPU workers lease, compute, write parts, settle, die, freeze, wake up and are told to stop, in any order and also
in the middle of one another's calls to the store. Whatever happens, what is settled never overlaps, and one healthy
GPU worker can always bring the campaign to its exact end.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gpu_jobs.campaign.collect import audit, collect
from gpu_jobs.campaign.manifest import read_output
from gpu_jobs.errors import StoreUnavailableError
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.testing import FakeClock, FakeGpuWorker, MemoryStore, a_policy, plan_campaign
from gpu_jobs.workloads.noop import value_of

NUM_SLOTS = 3
POLICY = a_policy(max_attempts=10_000)
ITEMS = st.integers(0, 11)
SLOTS = st.integers(0, NUM_SLOTS - 1)
WHICH = st.integers(0, 3)
STEPS = ("lease", "compute", "part", "settle", "beat", "kill", "salvage", "give", "ask")


class GpuWorkers(RuleBasedStateMachine):
    """A campaign, and what may happen to it."""

    @initialize(
        cuts=st.sets(st.integers(1, 11), min_size=1, max_size=3),
        poison=st.sets(st.integers(0, 11), max_size=3),
    )
    def begin(self, cuts, poison):
        self.clock = FakeClock()
        self.lose_in = self.interrupt_in = 0
        self.busy = []
        self.num_boots = 0
        self.settled, self.stored = {}, {}
        self.store = MemoryStore(clock=self.clock, reply_lost=self.is_reply_lost)
        self.plan = plan_campaign(self.store, num_items=12, chunk_boundaries=(0, *sorted(cuts), 12))
        self.poison = {item for item in poison if item < max(cuts)}  # one good chunk proves a GPU worker sound
        self.gpus = [self.worker_id() for _ in range(NUM_SLOTS)]
        self.store.before = self.before

    def worker_id(self):
        self.num_boots += 1
        origin_s = 1000.0 * self.num_boots  # no machine's clock agrees with another's
        return FakeGpuWorker(
            self.store,
            self.plan,
            POLICY,
            worker_id=f"boot-{self.num_boots}",
            monotonic=lambda: self.clock() - origin_s,
            poison=self.poison,
        )

    def is_reply_lost(self, _number, _key):
        if self.busy and self.lose_in:
            self.lose_in -= 1
            return self.lose_in == 0
        return False

    def before(self, _method, _key):
        if self.busy and self.interrupt_in:
            self.interrupt_in -= 1
            if self.interrupt_in == 0:
                self.step(*self.interruption)

    def step(self, slot, name, which=0, num_items=1):
        """One GPU worker does one thing; a store that does not answer is its end."""
        if slot in self.busy:
            return
        self.busy.append(slot)
        try:
            getattr(self, f"do_{name}")(slot, self.gpus[slot], which, num_items)
        except StoreUnavailableError:
            self.gpus[slot] = self.worker_id()
        finally:
            self.busy.remove(slot)
        self.note_stored()

    def note_stored(self):
        for gpu in self.gpus:
            for work in gpu.in_flight.chunks():
                num_items = sum(part.range.num_items for part in work.parts)
                self.stored[work.chunk] = max(num_items, self.stored.get(work.chunk, 0))

    def do_lease(self, _slot, gpu, *_):
        stored = dict(self.stored)
        work = gpu.lease()
        if work is not None:
            adopted = sum(part.range.num_items for part in work.parts)
            assert adopted >= stored.get(work.chunk, 0), "an attempt began with less than an earlier one had stored"

    def do_compute(self, _slot, gpu, which, num_items):
        if works := gpu.uncomputed():
            gpu.compute(works[which % len(works)], num_items)

    def do_part(self, _slot, gpu, *_):
        for work in gpu.in_flight.chunks():
            gpu.settler.write_part(work)

    def do_settle(self, _slot, gpu, *_):
        for work in gpu.in_flight.chunks():
            if not work.items_left:
                gpu.settler.settle(work)

    def do_beat(self, _slot, gpu, *_):
        gpu.beat()

    def do_kill(self, slot, *_):
        self.gpus[slot] = self.worker_id()

    def do_salvage(self, slot, gpu, *_):
        gpu.salvage()
        self.gpus[slot] = self.worker_id()

    def do_give(self, _slot, gpu, *_):
        gpu.give()

    def do_ask(self, _slot, gpu, *_):
        gpu.ask()

    @rule(slot=SLOTS, which=WHICH, num_items=st.integers(1, 4))
    def lease_and_compute(self, slot, which, num_items):
        self.step(slot, "lease")
        self.step(slot, "compute", which, num_items)

    @rule(slot=SLOTS, num_items=st.integers(1, 4))
    def finish(self, slot, num_items):
        """It goes on, whatever has happened meanwhile to what it holds."""
        for _ in range(4):
            self.step(slot, "compute", 0, num_items)
        self.step(slot, "settle")

    @rule(slot=SLOTS, by=SLOTS, num_items=st.integers(1, 4), is_writing=st.booleans())
    def take_over(self, slot, by, num_items, is_writing):
        """One is frozen, perhaps just after a part, until another has begun on what it held."""
        if is_writing:
            self.step(slot, "part")
        self.pass_time(31.0, set(range(NUM_SLOTS)) - {slot})
        for _ in range(3):
            self.step(by, "lease")
        self.step(by, "compute", 0, num_items)

    @rule(slot=SLOTS, by=SLOTS)
    def cut_the_tail(self, slot, by):
        """One has nothing to do and asks; the other gives."""
        self.step(slot, "beat")
        self.step(by, "beat")
        self.step(by, "ask")
        self.step(slot, "give")

    @rule(slot=SLOTS, name=st.sampled_from(STEPS), which=WHICH)
    def do(self, slot, name, which):
        self.step(slot, name, which)

    @rule(slot=SLOTS)
    def crash_of_a_bad_host(self, slot):
        """Only where it must not convict: nothing proves the host sound, or something was finished."""
        gpu = self.gpus[slot]
        works = gpu.uncomputed()
        if not gpu.is_trusted or len(works) != 1 or works[0].advanced or works[0].buffer:
            gpu.crash("bad host")

    @rule(seconds=st.sampled_from([5.0, 29.0, 31.0, 100.0]), beating=st.sets(SLOTS))
    def pass_time(self, seconds, beating):
        """Those that do not beat meanwhile are frozen."""
        self.clock.pass_time(seconds)
        for slot in beating:
            self.step(slot, "beat")

    @rule(writes=st.integers(1, 4))
    def lose_a_reply(self, writes):
        self.lose_in = writes

    @rule(calls=st.integers(1, 8), slot=SLOTS, name=st.sampled_from(STEPS), num_items=st.integers(1, 4))
    def interrupt(self, calls, slot, name, num_items):
        """Somebody comes in between, at that many calls to the store from now."""
        self.interrupt_in, self.interruption = calls, (slot, name, 0, num_items)

    @invariant()
    def settled_tiles_never_change_or_overlap(self):
        settlements = []
        for entry in self.store.list(keys.SETTLED):
            chunk = Chunk.parse(keys.stem(entry.key))
            settlements.append(Ledger(self.store).settlement(chunk))
            assert self.settled.setdefault(chunk, settlements[-1]) == settlements[-1]
        seen = set()
        for settlement in settlements:
            for tile in settlement.tiles:
                inside = set(range(*tile.range))
                if tile.kind != "open":
                    assert not seen & inside
                    seen |= inside
                if tile.kind == "committed":
                    assert not self.poison & inside
                if tile.kind == "quarantined":
                    assert inside <= self.poison
        audit(self.plan, settlements)

    def teardown(self):
        if not hasattr(self, "store"):
            return
        self.lose_in = self.interrupt_in = 0
        self.clock.pass_time(1000)
        healthy = self.worker_id()
        healthy.work_on()
        manifest = collect(self.store, self.plan)
        assert (manifest.is_complete, manifest.num_open) == (True, 0)
        quarantine = read_output(self.store, manifest.quarantine)
        assert set(quarantine["item_index"]) == self.poison
        found = [row for file in manifest.outputs for row in read_output(self.store, file).iter_rows()]
        assert found == [(i, f"item-{i:06d}", value_of(f"item-{i:06d}")) for i in range(12) if i not in self.poison]
        assert collect(self.store, self.plan) == manifest


class TestAnyInterleaving(GpuWorkers.TestCase):  # type: ignore[valid-type,misc]
    """Whatever GPU workers do and suffer, tiles never overlap and a healthy one ends the campaign exactly."""

    settings = settings(
        max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
