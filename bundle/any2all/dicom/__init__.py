"""DICOM in and out: folders of series become studies, results become derived series. No network, no method.

    in:  files → series → recognised by their protocol → volumes in their own units → a study folder
    out: a folder of results → one derived series for each volume, on the source's geometry

Positions are LPS mm in DICOM and RAS mm everywhere else; arrays read from DICOM have the axes (column, row, slice).
Patients' names and numbers stay in the source: nothing that is written here holds them, unless the source itself is
given to `write_dicom`.
"""

from .reading import SeriesImage, read_image, read_series
from .recognition import Override, Recognised, parse_overrides, recognise
from .series import Scan, Series, find_series, first_dicom, is_dicom, scan
from .studies import Converted, convert_subject, studies_from, subjects_of
from .write import write_dicom

__all__ = [
    "Converted",
    "Override",
    "Recognised",
    "Scan",
    "Series",
    "SeriesImage",
    "convert_subject",
    "find_series",
    "first_dicom",
    "is_dicom",
    "parse_overrides",
    "read_image",
    "read_series",
    "recognise",
    "scan",
    "studies_from",
    "subjects_of",
    "write_dicom",
]
