"""What leaves Slicer: voxels and geometry, exact on any grid, and nothing else."""

from __future__ import annotations

import gzip
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import scene_files
import slicer
import slicer.util
import vtk
from Any2allLib import nifti
from Any2allLib.upload import scene_volumes, slices_of, volume_facts, write_pieces, write_volume
from tiny_module import ball_volume, oblique

PATIENT = "Muster^Erika"


def turned(*degrees: float) -> np.ndarray:
    """(3, 3) rotation about the three axes, one after the other."""
    transform = vtk.vtkTransform()
    for turn, angle in zip((transform.RotateX, transform.RotateY, transform.RotateZ), degrees):
        turn(angle)
    matrix = transform.GetMatrix()
    return np.array([[matrix.GetElement(row, column) for column in range(3)] for row in range(3)])


def grid(rotation: np.ndarray, spacing, origin) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


GRIDS = {
    "plain": grid(np.eye(3), (1, 1, 1), (0, 0, 0)),
    "oblique": grid(turned(17, -23, 41), (0.9, 1.1, 5.0), (-101.5, 77.25, -312.125)),
    "flipped": grid(np.diag([-1, -1, 1]), (0.45, 0.45, 3), (110, 120, -60)),
    "left-handed": grid(turned(10, 20, 30) @ np.diag([1, 1, -1]), (1, 2, 3), (5, -6, 7)),
    "half a turn": grid(turned(180, 0, 0), (1, 1, 2), (1, 2, 3)),
    "sagittal": grid(np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]]), (0.5, 0.5, 1), (-90, 128, -128)),
}


def volume(affine: np.ndarray, kind="int16", name: str = "head"):
    voxels = np.random.default_rng(3).integers(0, 200, (5, 6, 7))
    return slicer.util.addVolumeFromArray(voxels.astype(kind), affine, name)


def read_independently(path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of int16, sform and qform by the formulas of nifti1.h."""
    content = gzip.decompress(path.read_bytes())
    sizes = struct.unpack_from("<8h", content, 40)[1:4]
    voxels = np.frombuffer(content, "<i2", offset=352).reshape(sizes[::-1])
    sform, qform = np.eye(4), np.eye(4)
    sform[:3] = np.reshape(struct.unpack_from("<12f", content, 280), (3, 4))
    b, c, d, x, y, z = struct.unpack_from("<6f", content, 256)
    qfac, *zooms = struct.unpack_from("<4f", content, 76)
    a = np.sqrt(max(0, 1 - b * b - c * c - d * d))
    q = np.array([a, b, c, d])
    cross = np.array([[0, -d, c], [d, 0, -b], [-c, b, 0]])
    rotation = (a * a - q[1:] @ q[1:]) * np.eye(3) + 2 * np.outer(q[1:], q[1:]) + 2 * a * cross
    qform[:3, :3] = rotation * zooms * [1, 1, qfac]
    qform[:3, 3] = x, y, z
    return voxels, sform, qform


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_voxels_and_place_are_exact_on_every_grid(slicer_scene, tmp_path, affine):
    node = volume(affine)
    write_volume(node, tmp_path / "v.nii.gz")
    voxels, sform, qform = read_independently(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(voxels, slicer.util.arrayFromVolume(node))
    np.testing.assert_allclose(sform, affine, atol=1e-4)
    np.testing.assert_allclose(qform, affine, atol=1e-4)
    again = slicer.util.loadVolume(str(tmp_path / "v.nii.gz"), {"show": False})
    np.testing.assert_allclose(voxels_in_world(again), voxels_in_world(node), atol=1e-4)


def voxels_in_world(node) -> np.ndarray:
    """(N, 4): position and value of every voxel; Slicer's reader turns a left-handed grid round, with its voxels."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    array = slicer.util.arrayFromVolume(node)
    k, j, i = (axis.ravel() for axis in np.indices(array.shape))
    ras = np.stack([i, j, k, np.ones_like(i)], -1) @ slicer.util.arrayFromVTKMatrix(matrix).T
    rows = np.column_stack([ras[:, :3], array.ravel()])
    return rows[np.lexsort(rows[:, :3].round(2).T)]


def test_a_linear_transform_above_is_applied(slicer_scene, tmp_path):
    node, above, below = (
        volume(GRIDS["oblique"]),
        *(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode") for _ in range(2)),
    )
    moves = grid(turned(0, 0, 30), (1, 1, 1), (10, 0, 0)), grid(turned(5, 0, 0), (1, 1, 1), (0, -4, 2))
    for transform, move in zip((above, below), moves):
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(move))
    below.SetAndObserveTransformNodeID(above.GetID())
    node.SetAndObserveTransformNodeID(below.GetID())
    write_volume(node, tmp_path / "v.nii.gz")
    np.testing.assert_allclose(
        read_independently(tmp_path / "v.nii.gz")[1], moves[0] @ moves[1] @ GRIDS["oblique"], atol=1e-4
    )


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_types_are_kept(slicer_scene, tmp_path, kind):
    node = volume(GRIDS["plain"], kind)
    write_volume(node, tmp_path / "v.nii.gz")
    array, _ = nifti.read(tmp_path / "v.nii.gz")
    assert array.dtype == kind
    np.testing.assert_array_equal(array, slicer.util.arrayFromVolume(node))


def test_nothing_but_voxels_and_geometry_is_in_the_bytes(slicer_scene, tmp_path):
    node = volume(oblique(), name=PATIENT)
    node.SetDescription(f"{PATIENT} 19700101")
    node.SetAttribute("DICOM.PatientName", PATIENT)
    node.SetAttribute("DICOM.instanceUIDs", "1.2.840.99.1 1.2.840.99.2")
    slicer.util.saveNode(node, str(tmp_path / f"{PATIENT}.nrrd"))  # its storage node knows a telling path, too
    write_volume(node, tmp_path / f"{PATIENT}.nii.gz")
    packed = (tmp_path / f"{PATIENT}.nii.gz").read_bytes()
    content = gzip.decompress(packed)
    for secret in (PATIENT, "Muster", "Erika", "19700101", "840.99", "nrrd", "nii", str(tmp_path)):
        assert secret.encode() not in packed and secret.encode() not in content
    assert packed[3:9] == b"\0\0\0\0\0" + packed[8:9]  # no name, no comment, no time
    geometry = {*range(0, 4), *range(40, 56), *range(70, 120), 123, *range(252, 348)}
    assert not any(byte for place, byte in enumerate(content[:352]) if place not in geometry)
    assert len(content) == 352 + 2 * 5 * 6 * 7
    write_volume(node, tmp_path / "again.nii.gz")
    assert (tmp_path / "again.nii.gz").read_bytes() == packed  # not even the time


def bent(node):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    thin = vtk.vtkThinPlateSplineTransform()
    transform.SetAndObserveTransformToParent(thin)
    node.SetAndObserveTransformNodeID(transform.GetID())


def not_a_number(node):
    slicer.util.arrayFromVolume(node)[2, 3, 4] = np.nan


def sheared(node):
    affine = GRIDS["plain"].copy()
    affine[0, 2] = 0.05
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))


def no_image(node):
    node.SetAndObserveImageData(None)


def coloured(node):
    image = vtk.vtkImageData()
    image.SetDimensions(2, 2, 2)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (bent, "bent by a transform"),
        (not_a_number, "NaN"),
        (sheared, "right angles"),
        (no_image, "no image"),
        (coloured, "3 values"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_words(slicer_scene, tmp_path, spoil, said):
    node = volume(GRIDS["plain"], "float32")
    spoil(node)
    with pytest.raises(ValueError, match=f"'head'.*{said}"):
        write_volume(node, tmp_path / "v.nii.gz")
    assert not list(tmp_path.glob("*.gz"))


def test_a_little_shear_is_sent_as_it_is(slicer_scene, tmp_path):
    affine = GRIDS["oblique"].copy()
    affine[0, 2] += 0.05
    write_volume(volume(affine), tmp_path / "v.nii.gz")
    np.testing.assert_allclose(nifti.read(tmp_path / "v.nii.gz")[1], affine, atol=1e-4)


def test_a_volume_is_written_in_pieces_and_a_given_up_one_leaves_no_file(slicer_scene, tmp_path):
    pieces = write_pieces(volume(GRIDS["plain"]), tmp_path / "v.nii.gz")
    assert [next(pieces) for _ in range(6)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    pieces.close()  # it has said 1: the file is whole, and stays
    assert nifti.read(tmp_path / "v.nii.gz")[0].shape == (5, 6, 7)
    pieces = write_pieces(volume(GRIDS["plain"]), tmp_path / "w.nii.gz")
    assert [next(pieces) for _ in range(5)][-1] == pytest.approx(0.8) and (tmp_path / "w.nii.gz").exists()
    pieces.close()
    assert not (tmp_path / "w.nii.gz").exists()


def test_only_scalar_images_that_a_person_sees_are_listed(slicer_scene):
    first, hidden, ours, empty = (ball_volume((0, 0, 0), name=name) for name in ("T1", "hidden", "CT", "empty"))
    hidden.SetHideFromEditors(True)
    ours.SetAttribute("Any2all.Role", "synthetic")
    empty.SetAndObserveImageData(None)
    slicer.util.addVolumeFromArray(np.ones((4, 4, 4), np.int16), nodeClassName="vtkMRMLLabelMapVolumeNode")
    slicer.util.addVolumeFromArray(np.ones((4, 4, 4, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    found = scene_volumes(slicer.mrmlScene)
    assert [(v.id, v.name, v.made_here, v.dicom) for v in found] == [
        (first.GetID(), "T1", False, {}),
        (ours.GetID(), "CT", True, {}),
    ]


def test_dicom_texts_come_from_slicers_database(slicer_scene, monkeypatch):
    known = {("1.2.3", "0008,0060"): "MR", ("1.2.3", "0018,0081"): "92", ("1.2.3", "0008,103E"): "ax FLAIR"}
    database = SimpleNamespace(isOpen=True, instanceValue=lambda uid, tag: known.get((uid, tag), ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    ball_volume((0, 0, 0)).SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    found = scene_volumes(slicer.mrmlScene)
    assert found[0].dicom == {"Modality": "MR", "EchoTime": "92", "SeriesDescription": "ax FLAIR"}
    database.isOpen = False
    assert scene_volumes(slicer.mrmlScene)[0].dicom == {}


def test_facts_and_height(slicer_scene):
    node = volume(GRIDS["sagittal"], name="sag")
    assert (volume_facts(node).name, volume_facts(node).voxels) == ("sag", 210)
    assert slices_of(node, 1.0) == 3  # its rows run along the body: 6 of them, of 0.5 mm
    assert slices_of(volume(GRIDS["oblique"]), 5.0) == 5 and slices_of(node, 100.0) == 1
    node.SetAndObserveImageData(None)
    assert volume_facts(node).voxels == 0 and slices_of(node, 1.0) == 0


@pytest.mark.parametrize("spoil", [lambda b: b[:-9], lambda b: b[:2], lambda b: b"no file of this kind at all" * 20])
def test_a_broken_file_is_refused_in_words(tmp_path, spoil):
    path = scene_files.write_nifti(tmp_path / "v.nii.gz", np.ones((3, 4, 5)), np.eye(4))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match="'v.nii.gz'"):
        nifti.read(path)


@pytest.mark.parametrize(
    ("place", "layout", "value", "said"),
    [
        (40, "<h", 4, None),  # a fourth axis of length 1
        (46, "<h", 2, "voxels"),
        (46, "<h", -1, "single"),
        (70, "<h", 128, "type"),
        (254, "<h", 0, "lies"),
    ],
)
def test_a_header_that_says_something_else_is_refused(tmp_path, place, layout, value, said):
    path = scene_files.write_nifti(tmp_path / "v.nii.gz", np.ones((3, 4, 5)), np.eye(4))
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(layout, content, place, value)
    (tmp_path / "v.nii").write_bytes(content)
    if said is None:
        assert nifti.read(tmp_path / "v.nii")[0].shape == (3, 4, 5)
    else:
        with pytest.raises(ValueError, match=said):
            nifti.read(tmp_path / "v.nii")
