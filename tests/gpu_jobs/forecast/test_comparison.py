"""Platforms beside one another: published figures come out again, and cold starts show."""

from dataclasses import replace

import pytest

from gpu_jobs.forecast.comparison import PUBLISHED, Volume, choose_when, from_published, simulated, table
from gpu_jobs.jobs.offers import offers_of
from gpu_jobs.report.comparison import chart_uri, page
from gpu_jobs.testing import an_offer

VOLUME = Volume()


@pytest.fixture(scope="module")
def figures():
    return [from_published(each, VOLUME, offers_of(each.platform)) for each in PUBLISHED]


def test_the_public_comparison_is_reproduced(figures):
    """At ten million a month $125, $87.50 and $62, as published."""
    assert [(each.platform, round(each.usd_per_month, 2)) for each in figures] == [
        ("cloud_run", 125.0),
        ("modal", 87.5),
        ("runpod", 62.0),
    ]
    assert [round(each.usd_per_million, 2) for each in figures] == [12.5, 8.75, 6.2]


def test_cold_starts_add_to_a_month(figures):
    """As `docs/dispatch.md` says, to a hundredth: most where they are longest or an idle window is billed."""
    assert [each.usd_per_month_with_starts for each in figures] == pytest.approx([131, 97, 71], rel=0.01)


def test_more_campaigns_a_month_cost_more(figures):
    """Each starts cold."""
    often = from_published(PUBLISHED[2], Volume(campaigns=600), offers_of("runpod"))

    assert often.usd_per_month == pytest.approx(figures[2].usd_per_month)
    assert often.usd_per_month_with_starts > figures[2].usd_per_month_with_starts


def test_each_platform_that_is_best_at_something_has_a_sentence(figures):
    """Cheapest, quickest to start, fastest."""
    said = choose_when(figures)

    quick = "campaigns are short or frequent, so that cold starts matter"
    again = "one campaign follows another immediately"
    assert said == [
        f"Choose modal when {quick}, or {again}, or one GPU worker must do as much as possible.",
        "Choose runpod when a month's bill matters most.",
        "cloud_run is best at none of these.",
    ]


def test_one_platform_is_no_choice(figures):
    """Nothing to choose from."""
    assert choose_when(figures[:1]) == ["Only cloud_run has figures: there is nothing to choose from."]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "modal is best at none of these."),
        ({"items_per_s": 88.0}, "modal is best at none of these."),
        ({"items_per_s": 95.0}, "Choose modal when one GPU worker must do as much as possible."),
        ({"warm_start_s": 1.0}, "Choose modal when one campaign follows another immediately."),
        ({"warm_start_s": None}, "modal is best at none of these."),
        ({"cold_start_s": None}, "modal is best at none of these."),
        (
            {"availability": 0.9, "num_orders": 9},
            "Choose modal when GPU workers must be available when they are ordered.",
        ),
    ],
)
def test_the_best_is_clearly_so(figures, changes, sentence):
    """By a twentieth; what is not known is best at nothing."""
    known = replace(figures[0], availability=0.5)

    assert sentence in choose_when([known, replace(known, platform="modal", **changes)])


@pytest.mark.parametrize(
    ("changes", "row", "shown"),
    [
        ({}, "warm start", "2 s"),
        ({"warm_start_s": None, "keeps_warm": True}, "warm start", "none seen"),
        ({"warm_start_s": None, "keeps_warm": False}, "warm start", "none: each GPU job starts cold"),
        ({"cold_start_s": None}, "cold start", "none seen"),
        ({"p95_s": 0.0123}, "p95 latency", "0.012 s"),
        ({"availability": 0.75, "num_orders": 8}, "availability", "75% of 8 GPU jobs"),
        ({"ramp_up_s": 33.3, "ramp_up_workers": 1}, "ramp-up", "33 s to 1 GPU worker"),
    ],
)
def test_what_is_not_known_is_not_made_up(figures, changes, row, shown):
    """Each figure says what it is of."""
    rows = {each["figure"]: each["cloud_run"] for each in table([replace(figures[0], **changes)])}

    assert rows[row] == shown


def test_a_month_of_slow_items_is_simulated_in_no_time():
    """A campaign of weeks is looked at as often as one of hours; what it costs is the same to a thousandth."""
    offer = an_offer()
    quick, slow = (simulated(offer, 10.0, pace, Volume(items=30_000), []) for pace in (1.0, 0.001))

    assert slow.usd_per_month_with_starts == pytest.approx(1000 * quick.usd_per_month, rel=0.01)


def test_the_page_and_the_chart_show_every_platform(figures):
    """What nobody measured is called unknown."""
    html = page(figures, VOLUME, "From <published> figures.")

    assert all(f">{each.platform}<" in html for each in figures)
    assert "10,000,000 items a month" in html
    assert "From &lt;published&gt; figures." in html
    assert chart_uri(figures).startswith("data:image/svg+xml;base64,")
    (latency,) = (row for row in table(figures) if row["figure"] == "p95 latency")
    assert {latency[each.platform] for each in figures} == {"unknown"}
