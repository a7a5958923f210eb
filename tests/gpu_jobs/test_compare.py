"""Platforms beside one another: published figures come out again, and cold starts show."""

import pytest

from gpu_jobs.compare import PUBLISHED, Volume, choose_when, from_published, table
from gpu_jobs.offers import offers_of
from gpu_jobs.report.comparison import chart_uri, page

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
    """Most where they are longest or an idle window is billed; never less than the work alone."""
    for each in figures:
        assert each.usd_per_month < each.usd_per_month_with_starts < 1.2 * each.usd_per_month


def test_more_campaigns_a_month_cost_more(figures):
    """Each starts cold."""
    often = from_published(PUBLISHED[2], Volume(campaigns=600), offers_of("runpod"))

    assert often.usd_per_month == pytest.approx(figures[2].usd_per_month)
    assert often.usd_per_month_with_starts > figures[2].usd_per_month_with_starts


def test_each_platform_that_is_best_at_something_has_a_sentence(figures):
    """Cheapest, quickest to start, fastest."""
    said = choose_when(figures)

    quick = "campaigns are short or frequent, so that cold starts count"
    assert said == [
        f"Choose modal when {quick}, or one GPU worker must do as much as possible.",
        "Choose runpod when a month's bill matters most.",
    ]


def test_the_page_and_the_chart_show_every_platform(figures):
    """What nobody measured is called so."""
    html = page(figures, VOLUME, "From published figures.")

    assert all(f">{each.platform}<" in html for each in figures)
    assert "10,000,000 items a month" in html
    assert chart_uri(figures).startswith("data:image/svg+xml;base64,")
    assert {row["p95 item"] for row in table(figures)} == {"not measured"}
