"""The page: what it says of a real and of made-up campaigns, how big it gets, that it escapes what users wrote."""

from datetime import UTC, datetime

import polars as pl
import pytest
from pydantic import TypeAdapter

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.forecast.forecast import Forecast, ForecastOption, Quantiles
from gpu_jobs.forecast.history import Outlook
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.report import sample_text
from gpu_jobs.report.facts import gather

EVIL = """'"><script>alert("1")</script>{{7*7}}{0}"""
T = 1_790_000_000.0


@pytest.fixture(scope="module")
def noop(tmp_path_factory):
    """A real campaign of thirty items, one of them with an evil name, and its manifest."""
    root = tmp_path_factory.mktemp("noop")
    ids = [f"prompt-{number}" for number in range(29)] + [EVIL]
    pl.DataFrame({"id": ids[::-1]}).write_parquet(root / "prompts.parquet")
    spec = CampaignSpec(
        store_root=str(root / "store"), dataset=str(root / "prompts.parquet"), workload="noop", chunk_weight=10
    )
    policy = Policy(max_workers=1, heartbeat_s=0.5)
    campaign = open_campaign(spec, policy)
    for _ in campaign.run(policy, tick_s=0.1):
        pass
    return campaign, collect(campaign.store, campaign.plan)


def test_a_real_campaign_is_told_in_full(noop, read_page):
    """Counts, GPU worker, GPU job with its reason, lineage and the first rows are on the page."""
    campaign, manifest = noop
    (beat,) = [beat for beat, _ in campaign.ledger.heartbeats()]
    (ordered,) = campaign.journal.read().orders.values()
    page = read_page(campaign, manifest)
    assert "Complete Every item is settled." in page.words
    assert "items 30 committed 30 quarantined 0 open 0" in page.words
    for expected in (
        beat.worker_id,
        beat.reason,
        ordered.reason,
        "prompt-28",
        manifest.digest,
        campaign.plan.chunk_reason,
    ):
        assert expected in page.words
    assert page.count("rect", **{"class": "committed"}) == 3


def test_the_report_can_be_made_again(noop, read_page):
    """It is a view: the second one replaces the first, and equals it while nothing has changed."""
    campaign, manifest = noop
    assert read_page(campaign, manifest).text == read_page(campaign, manifest).text


def test_the_terminal_gets_the_first_rows(noop):
    """Other workloads show a table of at most the rows asked for."""
    campaign, manifest = noop
    lines = sample_text(campaign.store, manifest, 5).splitlines()
    assert lines[0].split() == ["item_index", "item", "value"]
    assert len(lines) == 6
    assert EVIL in lines[1]


def test_what_users_wrote_is_never_markup(make_up, video_rows):
    """A script in any name, label, detail or reason is shown as text."""
    made = make_up(dataset=EVIL)
    made.opened(T)
    made.ordered(T, reason=EVIL)
    made.beat("boot-1", T + 100, reason=EVIL, gpu_note=EVIL, gpu_use=None)
    made.ended(T + 100, reason=f"failed: {EVIL}", detail=f"log {EVIL}")
    made.closed(T + 101, reason=EVIL)
    rows = video_rows().with_columns(
        video=pl.lit(EVIL), labels=pl.lit([{"label": EVIL, "score": 0.5}], dtype=video_rows().schema["labels"])
    )
    quarantine = [(EVIL, EVIL, EVIL, 1)]
    for sample in (rows, pl.DataFrame({EVIL: [EVIL], "list": [[EVIL]], "struct": [{EVIL: EVIL}]})):
        page = made.page(made.manifest(sample, quarantine, num_open=9))
        assert page.count("script") == 0
        assert not any(
            name.startswith("on") or "alert" in (value or "") for _, found in page.tags for name, value in found.items()
        )
        assert page.words.count(EVIL) > 12


def test_the_page_needs_nothing_but_itself(made, video_rows):
    """Every address on the page holds its own data, and a policy forbids scripts and requests."""
    page = made.page(made.manifest(video_rows()))
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    (policy,) = [found["content"] for tag, found in page.tags if "http-equiv" in found and tag == "meta"]
    assert policy.startswith("default-src 'none'")
    assert "url(" not in page.text


def test_a_large_campaign_makes_no_large_page(made, video_rows, jpeg):
    """Many videos, many shots and heavy pictures: the sample is cut, says so, and the page stays below 5 MB."""
    heavy = jpeg(noise=90)
    assert len(heavy) > 15_000
    page = made.page(made.manifest(video_rows(8, 60, heavy)))
    assert len(page.text) < 5_000_000
    assert "The first 5 of 8 videos." in page.words
    assert page.words.count("the first 40 of 60 shots") == 5
    assert 100 < page.count("img") < 5 * 40


def test_the_quarantine_is_capped_and_counted(make_up, video_rows):
    """Two hundred rows are shown, all are counted, by cause."""
    made = make_up(num_items=1000)
    quarantine = [(f"bad-{number}", "crashed" if number % 3 == 0 else "error", "why", 2) for number in range(300)]
    page = made.page(made.manifest(video_rows(), quarantine))
    assert "By cause: error 200, crashed 100. The first 200 of 300" in page.words
    assert "bad-199" in page.words
    assert "bad-200" not in page.words
    assert "300 items could not be used" in page.words


def test_a_partial_result_says_so_and_why(made):
    """Open items, the reason of the close, and what to do are in the headline."""
    made.opened(T)
    made.closed(T + 60, reason="the budget is spent")
    page = made.page(made.manifest(pl.DataFrame({"item": []}), num_open=100))
    assert "Partial 100 of 100 items are still open. The campaign is closed: the budget is spent." in page.words
    assert "There are no rows" in page.words


def test_dollars_and_money_set_aside_are_told(made, video_rows):
    """Ended GPU jobs have been paid for; live ones have their worst case set aside."""
    made.opened(T)
    made.ordered(T)
    made.ended(T + 100)
    made.ordered(T + 101, name="ff-1234-5678-0004")
    page = made.page(made.manifest(video_rows()))
    assert "spent $1.25 reserved $12.00" in page.words
    assert "up to $12.00" in page.words


def test_the_forecast_is_told_with_what_came_of_it(tmp_path, read_page):
    """Only after the end is there a score."""
    (tmp_path / "prompts.csv").write_text("id\none\ntwo\n")
    spec = CampaignSpec(store_root=str(tmp_path / "store"), dataset=str(tmp_path / "prompts.csv"), workload="noop")
    policy = Policy(max_workers=1, heartbeat_s=0.5)
    campaign = open_campaign(spec, policy)
    free, soon = Quantiles(p5=0.0, p50=0.0, p90=0.0, p95=0.0), Quantiles(p5=0.1, p50=90.0, p90=300.0, p95=600.0)
    expensive = Quantiles(p5=1.0, p50=1.5, p90=2.5, p95=3.0)
    options = (
        ForecastOption(name="local", usd=free, finish_s=soon, complete_share=1.0),
        ForecastOption(name="modal", usd=expensive, finish_s=soon, complete_share=0.95),
    )
    forecast = Forecast(options=options, recommended="local", why="it is free", num_campaigns=60)
    outlook = Outlook(forecast=forecast, at=datetime.now(UTC), spent_usd=0.0)
    campaign.store.create(keys.FORECAST, TypeAdapter(Outlook).dump_json(outlook))
    before = read_page(campaign, collect(campaign.store, campaign.plan))
    for _ in campaign.run(policy, tick_s=0.1):
        pass

    after = read_page(campaign, collect(campaign.store, campaign.plan))

    for page in (before, after):
        assert "Forecast and outcome" in page.words
        assert "modal $1.50 $2.50 1 min 30 s 5 min 95%" in page.words
    assert "actual $" not in before.words
    assert "actual $0.00" in after.words
    assert "within its range" in after.words


def test_a_gpu_worker_that_fell_silent_is_told_from_one_at_work(made, video_rows):
    """No last word, and its GPU job over: it fell silent. GPU job alive: it is at work."""
    made.opened(T)
    made.ordered(T)
    made.ended(T + 100)
    made.ordered(T + 101, name="ff-1234-5678-0004")
    made.beat("silent", T + 90, status="working", reason="")
    made.beat("busy", T + 190, status="working", reason="", order="ff-1234-5678-0004")
    page = made.page(made.manifest(video_rows()))
    assert page.words.count("stopped reporting") == 1
    assert page.words.count("still working at its last heartbeat") == 1
    assert page.words.count("75%") == 2


def test_too_many_chunks_are_not_drawn_one_by_one(make_up, video_rows):
    """Beyond two thousand chunks no attempt is read; each lane shows sums."""
    made = make_up(num_items=2001, num_chunks=2001)
    made.opened(T)
    made.beat("boot-1", T + 100)
    made.attempt(Chunk(0, 1), 1, "boot-1", T)
    facts = gather(made.campaign, made.campaign.snapshot(), made.manifest(video_rows()))
    assert facts.attempts is None
    page = made.page(made.manifest(video_rows()))
    assert "too many chunks" in page.words
    assert page.count("rect", **{"class": "committed"}) == 1
