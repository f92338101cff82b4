"""Threads that wait must not hold a core that another program needs."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("said, found", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_waits_asleep_unless_the_user_says_otherwise(said, found):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": said} if said else {}
    look = "import sys, any2all, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [found, "False"], "set before torch reads it"
