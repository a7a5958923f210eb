"""Modal's emulator with a campaign, for the adapter's own tests."""

import pytest

from tests.contracts.modal_bench import ModalBench


@pytest.fixture
def bench(request):
    bench = ModalBench(request.getfixturevalue)
    yield bench
    bench.close()


@pytest.fixture
def cloud(bench):
    return bench.cloud
