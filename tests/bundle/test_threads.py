"""Threads that wait must not hold a core that another program needs."""

import os
import subprocess
import sys

import pytest

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    "said, found",
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_openmp_waits_a_short_while_unless_the_user_says_otherwise(said, found):
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | said
    look = "import sys, any2all, os; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [found, "False"], "set before torch reads it"
