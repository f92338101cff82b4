"""Grids and volumes: reading, orientation, resampling there and back, the prior's grid (METHOD section 4, "Grids").

Affines are RAS and map the array's own index order to mm. Inside the pipeline arrays are canonical: (Z, H, W) with z
toward Superior, h toward Posterior, w toward the patient's Left.
"""

from .grid import CANONICAL_CODES, Grid, Volume, canonical
from .layout import check_overlap, field_of_view_overlap, head_bounds, overlap, prior_grid
from .reading import read_volume
from .resampling import resample, to_grid

__all__ = [
    "CANONICAL_CODES",
    "Grid",
    "Volume",
    "canonical",
    "check_overlap",
    "field_of_view_overlap",
    "head_bounds",
    "overlap",
    "prior_grid",
    "read_volume",
    "resample",
    "to_grid",
]
