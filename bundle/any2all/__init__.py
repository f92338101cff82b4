"""Any2all: fill in the missing brain images of a study with one diffusion prior."""

import os

__version__ = "0.7.3"

# OpenMP's threads wait for each other in a loop of 300,000 turns before they sleep. Where another program takes a core
# (Slicer, say), the thread that is waited for stands in a queue behind the one that waits: a demonstration of half a
# minute took nine. After 2,000 turns they leave the core to it (50 s), and nothing is lost where all cores are free.
# GNU's OpenMP, torch's on Linux, reads this when torch is loaded: it is for what imports this package first (the
# demonstration) and for processes that are started from here (the server's worker). A user's own setting stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
