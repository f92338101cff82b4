"""A user's cohort made ready for training: ``configs/prepare.json``.

    files or DICOM → subjects → checked, registered, resampled once → stacks → datalist, report, page to look at

Whatever makes a `Subject` whose files `geometry.read_volume` can read may stand in front of it.
"""

from .command import Preparation
from .sources import Subject, find_subjects
from .subject import Settings, prepare_subject

__all__ = ["Preparation", "Settings", "Subject", "find_subjects", "prepare_subject"]
