"""What sampling is said to take: passes and products counted apart."""

import pytest
from any2all.diffusion.schedule import cosine_schedule
from any2all.forecast import _seconds_of
from any2all.samplers import MCS, MPS

PASS, WITH_PRODUCT = 1.0, 3.5


class Prior:
    schedule = cosine_schedule()


@pytest.mark.parametrize(
    ("sampler", "undersampled", "missing", "passes", "products"),
    [
        (MCS(1, centre=0.5, mean_network=Prior()), False, True, 2, 0),  # `fast`: one of each network
        (MCS(10, centre=0.5, mean_network=Prior()), False, True, 11, 0),
        (MCS(10, consistency="calibrated"), True, True, 20, 0),  # the second time is as plain as the first
        (MCS(10, consistency="moment"), True, False, 10, None),
        (MCS(10, consistency="moment"), True, True, 20, None),
        (MPS(20), True, False, 20, 20),
    ],
)
def test_products_are_not_taken_for_passes_nor_passes_for_products(sampler, undersampled, missing, passes, products):
    if products is None:
        products = MCS(10, consistency="moment").passes(Prior.schedule, True, False) - 10
        assert products > 0
    assert sampler.passes(Prior.schedule, undersampled, missing) == passes + products
    seconds = _seconds_of(sampler, Prior(), (PASS, WITH_PRODUCT), 3, undersampled, missing)
    assert seconds == pytest.approx(3 * (passes * PASS + products * (WITH_PRODUCT - PASS)))
