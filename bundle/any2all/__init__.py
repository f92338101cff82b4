"""Any2all: fill in the missing brain images of a study with one diffusion prior."""

import os

__version__ = "0.6.0"

# OpenMP's threads wait for each other in a busy loop. Where another program takes a core (Slicer, say), the thread
# that is waited for stands in a queue behind the one that waits: a demonstration of half a minute took nine. Asleep,
# they leave the core to it. OpenMP reads this when torch is loaded, so it is for what imports this package first
# (the demonstration) and for every process that is started from here (the server's); whoever has set it knows better.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
