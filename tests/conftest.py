import pytest
import torch


def pytest_configure():
    # One thread: results do not depend on the machine's cores, and threads that wait for each
    # other take ten times as long where cores are shared.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
