"""What comes out (contract 2): volumes on the reference grid, their origin, one picture, one summary."""

from .report import draw_report
from .results import ModalityResult, Result
from .volumes import read_provenance
from .write import write_results

__all__ = ["ModalityResult", "Result", "draw_report", "read_provenance", "write_results"]
