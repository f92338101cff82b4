"""Raw data files as their own public libraries write them: ismrmrd, h5py in the layout of fastMRI, BART's pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
from ismrmrd import xsd

P_L_S = ((0, 1, 0), (1, 0, 0), (0, 0, 1))  # LPS directions of readout, phase encoding, slices: canonical data


def header_xml(
    matrix: tuple[int, int, int],
    fov: tuple[float, float, float],
    recon_x: float | None = None,
    centres: tuple[int | None, int | None] = (None, None),
    trajectory: str = "cartesian",
) -> str:
    """The XML of one encoding; ``recon_x``: the readout's field of view without oversampling."""

    def space(fov_x: float) -> xsd.encodingSpaceType:
        x, y, z = matrix
        size = xsd.matrixSizeType(x=x, y=y, z=z)
        return xsd.encodingSpaceType(matrixSize=size, fieldOfView_mm=xsd.fieldOfViewMm(x=fov_x, y=fov[1], z=fov[2]))

    limits = xsd.encodingLimitsType()
    for step, centre, size in ((1, centres[0], matrix[1]), (2, centres[1], matrix[2])):
        limit = xsd.limitType(minimum=0, maximum=size - 1, center=size // 2 if centre is None else centre)
        setattr(limits, f"kspace_encoding_step_{step}", limit)
    encoding = xsd.encodingType(
        encodedSpace=space(fov[0]),
        reconSpace=space(fov[0] if recon_x is None else recon_x),
        encodingLimits=limits,
        trajectory=xsd.trajectoryType(trajectory),
    )
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63500000), encoding=[encoding]
    )
    return xsd.ToXML(header)


@dataclass
class Readout:
    """One readout to write: samples (coils, N), counters, flags (ISMRMRD's numbers) and geometry."""

    samples: np.ndarray
    line: int = 0
    partition: int = 0
    slice: int = 0
    flags: tuple[int, ...] = ()
    centre: int | None = None
    counters: tuple[tuple[str, int], ...] = ()
    position: tuple[float, float, float] = (0, 0, 0)
    directions: tuple = P_L_S
    dwell_us: float = 5.0
    discard: tuple[int, int] = (0, 0)
    trajectory: np.ndarray | None = None


def write_ismrmrd(path: Path, xml: str, readouts: list[Readout]) -> Path:
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        dataset.write_xml_header(xml.encode())
        for number, readout in enumerate(readouts):
            dataset.append_acquisition(_acquisition(readout, number))
    return path


def _acquisition(readout: Readout, number: int) -> ismrmrd.Acquisition:
    acquisition = ismrmrd.Acquisition.from_array(readout.samples.astype(np.complex64))
    count = readout.samples.shape[1]
    acquisition.scan_counter = number
    acquisition.center_sample = count // 2 if readout.centre is None else readout.centre
    if readout.trajectory is not None:
        acquisition.resize(count, len(readout.samples), readout.trajectory.shape[1])
        acquisition.data[:], acquisition.traj[:] = readout.samples, readout.trajectory
        acquisition.center_sample = count // 2
    acquisition.sample_time_us = readout.dwell_us
    acquisition.discard_pre, acquisition.discard_post = readout.discard
    acquisition.idx.kspace_encode_step_1 = readout.line
    acquisition.idx.kspace_encode_step_2 = readout.partition
    acquisition.idx.slice = readout.slice
    for name, value in readout.counters:
        setattr(acquisition.idx, name, value)
    for flag in readout.flags:
        acquisition.setFlag(flag)
    acquisition.position[:] = readout.position
    acquisition.read_dir[:], acquisition.phase_dir[:], acquisition.slice_dir[:] = readout.directions
    return acquisition


def lines_of(kspace: np.ndarray, step_mm: float = 5.0, directions: tuple = P_L_S, origin=(0, 0, 0)) -> list[Readout]:
    """Readouts of (Z, C, H, W) where it is not zero, slices ``step_mm`` apart."""
    normal = np.array(directions[2], float)
    return [
        Readout(
            kspace[z, :, :, w],
            line=w,
            slice=z,
            position=tuple(np.array(origin) + z * step_mm * normal),
            directions=directions,
        )
        for z in range(len(kspace))
        for w in range(kspace.shape[3])
        if kspace[z, :, :, w].any()
    ]


def spokes_of(kspace: np.ndarray, trajectory: np.ndarray, step_mm: float = 5.0) -> list[Readout]:
    """Readouts of (Z, C, spokes, samples) along (spokes, samples, D), slices ``step_mm`` apart."""
    return [
        Readout(kspace[z, :, s], line=s, slice=z, position=(0, 0, z * step_mm), trajectory=trajectory[s])
        for z in range(len(kspace))
        for s in range(len(trajectory))
    ]


def write_fastmri(path: Path, kspace: np.ndarray, xml: str, mask: np.ndarray | None = None) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = xml
        file["reconstruction_rss"] = np.zeros(1, np.float32)
        if mask is not None:
            file["mask"] = mask
        file.attrs["acquisition"] = "AXT2"
    return path


def write_bart(path: Path, array: np.ndarray, dims: dict[int, int]) -> Path:
    """``array`` with its axes at BART's dimensions: ``dims`` maps a dimension to an axis."""
    sizes = [array.shape[dims[d]] if d in dims else 1 for d in range(16)]
    ordered = array.transpose([dims[d] for d in sorted(dims)]).astype("<c8")
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + " \n# Command\nphantom \n")
    path.with_suffix(".cfl").write_bytes(ordered.tobytes(order="F"))
    return path.with_suffix(".cfl")
