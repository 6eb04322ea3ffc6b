"""The kernels that these tests launch: shipped as machine code, and in Triton's interpreter."""

import pytest

from page4d_plugins.kernel_pack import shipped


@pytest.fixture(scope="session")
def pack():
    """The shipped pack; not to be changed."""
    return shipped()


@pytest.fixture(scope="module")
def attention():
    """page4d_plugins.attention, its kernels in Triton's interpreter."""
    from tests.support.kernel_cases import interpreting

    with interpreting() as module:
        yield module


@pytest.fixture
def plans(attention, monkeypatch):
    """The plans that are made during a test."""
    plans, make_plan = [], attention.make_plan

    def recorded(*call):
        plans.append(make_plan(*call))
        return plans[-1]

    monkeypatch.setattr(attention, "make_plan", recorded)
    return plans
