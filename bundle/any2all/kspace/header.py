"""The ISMRMRD header, an XML text that fastMRI and ISMRMRD files carry (Inati et al., 2017, doi:10.1002/mrm.26089)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

from ..errors import Any2allError

MOST_HEADER_BYTES = 2**22
_MOST_MATRIX = 2**14
_MOST_FOV_MM = 1e5

Counts = tuple[int, int, int]
Lengths = tuple[float, float, float]


@dataclass(frozen=True)
class Header:
    """What the first encoding of a header says; x is the readout, y and z are phase-encoded.

    Attributes:
        encoded_matrix, encoded_fov_mm: of k-space, readout oversampling included.
        recon_fov_mm: of the image that the scanner makes.
        trajectory: such as ``cartesian``.
        centres: of the counters of y and z, the zero frequency; None where the header does not say.
        noise_bandwidth: relative bandwidth of the receiver's noise.
    """

    encoded_matrix: Counts
    encoded_fov_mm: Lengths
    recon_fov_mm: Lengths
    trajectory: str
    centres: tuple[int | None, int | None]
    noise_bandwidth: float

    @property
    def spacing_mm(self) -> Lengths:
        """Of the encoded image, along x, y, z."""
        x, y, z = (fov / n for fov, n in zip(self.encoded_fov_mm, self.encoded_matrix))
        return (x, y, z)

    def kept_rows(self, rows: int) -> int | None:
        """How many of ``rows`` along the readout lie in the field of view that was asked for; None: all of them."""
        kept = round(rows * self.recon_fov_mm[0] / self.encoded_fov_mm[0])
        return kept if 0 < kept < rows else None


def parse_header(text: bytes | str, key: str) -> Header:
    """Read the XML text. Raises Any2allError where it is none, or lacks or distorts what is needed."""
    raw = text.encode() if isinstance(text, str) else bytes(text)
    # a zero byte would be UTF-16, in which the second test sees nothing
    if len(raw) > MOST_HEADER_BYTES or b"<!" in raw.replace(b"<!--", b"") or b"\0" in raw:
        raise _refused("the ISMRMRD header is too long, or defines entities", key)
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _refused("the ISMRMRD header is no XML", key, str(error)[:60]) from None
    encoding = _child(root, "encoding")
    if encoding is None:
        raise _refused("the ISMRMRD header has no encoding", key)
    limits = [_number(encoding, ("encodingLimits", f"kspace_encoding_step_{i}", "center"), key, None) for i in (1, 2)]
    return Header(
        encoded_matrix=_matrix(encoding, key),
        encoded_fov_mm=_fov(encoding, "encodedSpace", key),
        recon_fov_mm=_fov(encoding, "reconSpace", key),
        trajectory=(_text(encoding, ("trajectory",)) or "cartesian").strip().lower(),
        centres=tuple(None if number is None else int(number) for number in limits),
        noise_bandwidth=_number(root, ("acquisitionSystemInformation", "relativeReceiverNoiseBandwidth"), key, 1.0),
    )


def _refused(message: str, key: str, value: str | None = None) -> Any2allError:
    return Any2allError(message, key=key, value=value, allowed="an ISMRMRD header")


def _child(element: ElementTree.Element | None, name: str) -> ElementTree.Element | None:
    """The first child of this name, in whichever namespace."""
    return next((c for c in (() if element is None else element) if str(c.tag).rpartition("}")[2] == name), None)


def _text(element: ElementTree.Element, path: tuple[str, ...]) -> str | None:
    for name in path:
        element = _child(element, name)
    return None if element is None else element.text


def _number(element: ElementTree.Element, path: tuple[str, ...], key: str, default: float | None) -> float | None:
    """A finite number that is not negative; ``default`` where the header does not have it."""
    text = _text(element, path)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _MOST_FOV_MM:
        raise _refused(f"a number of the ISMRMRD header cannot be used: {'.'.join(path)}", key, text[:40])
    return number


def _matrix(encoding: ElementTree.Element, key: str) -> Counts:
    numbers = [_number(encoding, ("encodedSpace", "matrixSize", axis), key, None) for axis in "xyz"]
    if any(n is None or n != int(n) or not 1 <= n <= _MOST_MATRIX for n in numbers):
        raise _refused("the ISMRMRD header has no encoded matrix that can be used", key, str(numbers))
    return (int(numbers[0]), int(numbers[1]), int(numbers[2]))


def _fov(encoding: ElementTree.Element, space: str, key: str) -> Lengths:
    numbers = [_number(encoding, (space, "fieldOfView_mm", axis), key, None) for axis in "xyz"]
    if any(not n for n in numbers):
        raise _refused(f"the ISMRMRD header has no field of view in {space}", key, str(numbers))
    return (numbers[0], numbers[1], numbers[2])
