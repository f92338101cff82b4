"""Six slices of discs, and an evaluation on them that takes no time."""

from __future__ import annotations

import numpy as np
import torch
from any2all.evaluation.cases import Cases
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.tasks import Method, Task
from any2all.stack import load_stack

STACK = load_stack()
SIMULATION = {"acceleration": 4, "noise_std": 0.01, "seed": 0}


def truth(kind="rendered", groups=("a", "b", "c")):
    """Six slices (6, 6, 32, 32) in u, two of each group: discs of another brightness in every channel."""
    h, w = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    radius = torch.linspace(0.5, 0.8, 6)[:, None, None, None]
    disc = ((h**2 + w**2)[None, None] < radius**2).float()
    slices = disc * (torch.linspace(0.2, 0.8, 6)[None, :, None, None] + 0.1 * torch.sin(9 * h + 5 * w))
    inside = disc[:, 0].bool().numpy()
    names = tuple(group for group in groups for _ in range(6 // len(groups)))
    facts = {group: {"amyloid_positive": group == "a"} for group in groups}
    return Cases("discs", kind, slices, STACK.names, names, inside, np.where(inside, 3, 0), None, facts)


def evaluation(prior, folder, methods, tasks=None, **changes):
    tasks = tasks or [Task("R4+T1", ("T2FLAIR",), ("T1",), ("T2FLAIR",)), Task("T1", ("CT", "PET"), ("T1",))]
    settings = {"simulation": SIMULATION, "output_dir": folder, **changes}
    return Evaluation(prior, [truth()], tasks, [Method.from_dict(m) for m in methods], **settings)
