"""What can be rented: our dated prices, the user's own in their place, and a word about stale ones."""

from datetime import date, timedelta

import pytest

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.offers import STALE_DAYS, load_offers, offers_of, offers_table, stale_prices
from gpu_jobs.testing import an_offer

TODAY = date(2026, 11, 24)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes the user's file and names it in the environment."""

    def write(text):
        path = tmp_path / "own.toml"
        path.write_text(text)
        monkeypatch.setenv("FANFOLD_OFFERS", str(path))
        return path

    return write


def test_every_price_says_where_it_is_from_and_of_when():
    """And what it is billed by; only this machine costs nothing."""
    offers = load_offers()

    assert {offer.platform for offer in offers} == {"local", "cloud_run", "modal", "runpod"}
    assert len({offer.key for offer in offers}) == len(offers)
    for offer in offers:
        assert offer.price_source
        assert offer.priced_on <= TODAY
        assert (offer.usd_per_hour > 0) == (offer.platform != "local")
        assert 0 <= offer.cold_start_p50_s <= offer.cold_start_p90_s
        assert offer.platform == "local" or offer.gpu_memory_gib > 0


def test_several_gpus_cost_and_do_several_times_as_much():
    """Prices in the file are of one GPU."""
    one, two, *_ = offers_of("runpod", gpu="NVIDIA A40")

    assert (one.num_gpus, two.num_gpus) == (1, 2)
    assert two.usd_per_hour == 2 * one.usd_per_hour
    assert two.worker_speed == 2 * one.worker_speed


def test_blackwell_gpus_get_the_build_that_has_kernels_for_them():
    """And Cloud Run's L4, whose driver is too old for CUDA 13, the other."""
    clouds = [offer for offer in load_offers() if offer.platform in ("cloud_run", "runpod")]
    found = {offer.gpu for offer in clouds if offer.image("fanfold:{cuda}") == "fanfold:cu130"}
    (l4,) = {offer.image("fanfold:{cuda}") for offer in clouds if offer.gpu == "nvidia-l4"}

    assert found == {"nvidia-rtx-pro-6000", "NVIDIA B200"}
    assert l4 == "fanfold:cu126"
    assert clouds[0].image("fanfold@sha256:0") == "fanfold@sha256:0"


def test_an_adapter_asks_for_its_region():
    """One offer per region; each GPU type where it exists."""
    assert [offer.gpu for offer in offers_of("cloud_run", region="us-central1")] == ["nvidia-rtx-pro-6000"]
    assert len(offers_of("cloud_run", gpu="nvidia-l4")) == 4


def test_the_users_own_price_replaces_ours(own):
    """In all offers of that GPU type that the entry fits; the other fields stay."""
    own('[[platforms.modal.gpus]]\ngpu = "H100"\nusd_per_hour = 3.0\nprice_source = "our contract"\n')

    found = {offer.num_gpus: offer for offer in offers_of("modal", gpu="H100")}

    assert {count: offer.usd_per_hour for count, offer in found.items()} == {1: 3.0, 2: 6.0, 4: 12.0, 8: 24.0}
    assert found[1].speed == 9.5
    assert offers_of("modal", gpu="H200")[0].usd_per_hour == 4.76


def test_the_users_own_region_alone_is_changed(own):
    """An entry that names a region means that one."""
    own('[[platforms.cloud_run.gpus]]\ngpu = "nvidia-l4"\nregion = "us-east4"\nusd_per_hour = 0.5\n')

    prices = {offer.region: offer.usd_per_hour for offer in offers_of("cloud_run", gpu="nvidia-l4")}

    assert (prices["us-east4"], prices["europe-west4"]) == (0.5, 1.05)


def test_the_users_own_offer_is_added(own):
    """A GPU type that we do not list, with the platform's rules where the entry is silent."""
    own('[[platforms.modal.gpus]]\ngpu = "B300"\nusd_per_hour = 9.0\nspeed = 30.0\n')

    (offer,) = offers_of("modal", gpu="B300")

    assert (offer.usd_per_hour, offer.idle_s, offer.num_gpus) == (9.0, 60.0, 1)


def test_a_rule_of_a_whole_platform_is_replaced(own):
    """Such as the number of GPU workers that an account may have."""
    own("[platforms.runpod]\nmax_alive = 40\n")

    assert {offer.max_alive for offer in offers_of("runpod")} == {40}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[platforms.modal", "cannot be read"),
        ("[platforms.modal]\ncold_start = 3\n", "platforms.modal has no field 'cold_start'"),
        ('[[platforms.modal.gpus]]\ngpu = "L4"\nusd_per_hour = "cheap"\n', "usd_per_hour"),
        ('[[platforms.mine.gpus]]\ngpu = "L4"\nusd_per_hour = 1.0\n', "mine L4: "),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_place(own, text, problem):
    """One sentence that names the file or the offer, and what is wrong."""
    own(text)

    with pytest.raises(RefusedError, match=r"^FANFOLD_OFFERS: ") as refused:
        load_offers()

    assert problem in str(refused.value)


def test_stale_prices_are_reported_once_per_platform():
    """What costs nothing is never stale."""
    old = TODAY - timedelta(days=STALE_DAYS + 1)
    offers = [
        an_offer(platform="a", priced_on=old),
        an_offer(platform="a", priced_on=TODAY, gpu="h100"),
        an_offer(platform="b", priced_on=TODAY - timedelta(days=STALE_DAYS)),
        an_offer(platform="c", priced_on=old, usd_per_hour=0.0),
    ]

    (warning,) = stale_prices(offers, TODAY)

    assert "a l4" in warning
    assert f"{STALE_DAYS + 1} days old" in warning


def test_the_table_shows_the_best_price_for_its_work_first():
    """Stale prices are marked, and the reason stands below."""
    slow = an_offer(gpu="slow", usd_per_hour=1.0, speed=0.5)
    fast = an_offer(gpu="fast", usd_per_hour=1.5, speed=3.0, priced_on=TODAY - timedelta(days=200))

    header, first, second, warning = offers_table([slow, fast], TODAY).splitlines()

    assert header.startswith("platform")
    assert first.split()[1] == "fast"
    assert "*" in first
    assert second.split()[4] == "1.00"
    assert "200 days old" in warning
