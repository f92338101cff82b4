"""Whitening, coil compression, and k-space turned about: what they promise, in numbers."""

from __future__ import annotations

import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.kspace.formats import check_kspace, read_kspace
from any2all.kspace.fourier import fft2c
from any2all.kspace.prepare import prepare
from any2all.kspace.preprocess import MOST_COILS, compressed, preprocessed, whitened
from any2all.kspace.raw import sample_covariance
from any2all.kspace.reconstruct import sense
from any2all.kspace.simulate import birdcage_maps, simulate_kspace


def noise_of(mixing: np.ndarray, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Complex noise ``(C, *shape)`` with covariance mixing mixing^H."""
    parts = np.random.default_rng(seed).normal(scale=np.sqrt(0.5), size=(2, len(mixing), int(np.prod(shape))))
    return (mixing @ (parts[0] + 1j * parts[1])).reshape(-1, *shape)


@pytest.fixture(scope="module")
def mixing() -> np.ndarray:
    rng = np.random.default_rng(5)
    return 0.01 * (np.diag([1.0, 2.0, 0.5, 4.0, 1.0, 1.0]) + 0.5 * rng.normal(size=(6, 6)) + 0.3j * np.eye(6))


def test_whitening_makes_the_noise_covariance_the_identity(mixing):
    """In units of ``noise_std``, on k-space that is nothing but noise which the estimate has not seen."""
    kspace = noise_of(mixing, (1, 200, 200), 1).swapaxes(0, 1).astype(np.complex64)
    raw = check_kspace({"kspace": kspace, "noise": noise_of(mixing, (50000,), 2)})
    white = whitened(raw)
    found = sample_covariance(white.kspace[0].reshape(6, -1)) / white.noise_std**2
    print(f"largest deviation from the identity: {np.abs(found - np.eye(6)).max():.4f}")
    before = sample_covariance(kspace[0].reshape(6, -1))
    assert np.abs(before / before[0, 0].real - np.eye(6)).max() > 0.5
    np.testing.assert_allclose(found, np.eye(6), atol=0.03)
    assert white.noise_std == pytest.approx(np.sqrt(np.trace(mixing @ mixing.conj().T).real / 6), rel=0.02)
    assert whitened(white) is white


def test_a_noisy_coil_spoils_less_when_coils_are_whitened(phantom, mixing):
    """Nor does it shade the image: intensities are those of the coils as the file has them."""
    images = phantom[:1]
    made = simulate_kspace(images, coils=6, acceleration=3, acs_lines=16, noise_std=0.0)
    kspace = made.kspace + made.mask * noise_of(mixing, (1, 96, 80), 3).swapaxes(0, 1)
    arrays = {"kspace": kspace.astype(np.complex64), "coil_maps": birdcage_maps((96, 80), 6)}
    head = images > 0.1

    def error(**more: np.ndarray) -> float:
        image = sense(prepare(check_kspace(arrays | more)))
        return float(np.linalg.norm((image - images)[head]) / np.linalg.norm(images[head]))

    plain, white = error(), error(noise_covariance=mixing @ mixing.conj().T)
    print(f"error without whitening {plain:.3f}, with {white:.3f}")
    assert white < 0.9 * plain


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"noise": np.ones((6, 5), np.complex64)}, "noise"),
        ({"noise": np.ones((6, 50), np.complex64)}, "noise"),
        ({"noise": np.ones((6, 50))}, "noise"),
        ({"noise_covariance": np.eye(5)}, "noise_covariance"),
        ({"noise_covariance": -np.eye(6)}, "noise_covariance"),
        ({"noise_covariance": np.full((6, 6), np.nan)}, "noise_covariance"),
        ({"affine": np.eye(3)}, "affine"),
        ({"affine": np.zeros((4, 4))}, "affine"),
        ({"affine": np.diag([1, 1, 1, 2.0])}, "affine"),
    ],
)
def test_noise_and_geometry_that_cannot_be_used_are_refused(extra, key):
    kspace = np.ones((1, 6, 8, 8), np.complex64)
    with pytest.raises(Any2allError) as caught:
        check_kspace({"kspace": kspace, **extra}, "modalities.T1.kspace")
    assert caught.value.key == f"modalities.T1.kspace.{key}"


def test_compression_keeps_energy_mask_noise_and_the_image(phantom):
    """32 coils along a birdcage are about 8 independent ones."""
    made = simulate_kspace(phantom[:1], coils=32, acceleration=2, acs_lines=24, noise_std=0.002)
    raw = check_kspace({"kspace": made.kspace, "mask": made.mask, "coil_maps": made.coil_maps})
    fewer = compressed(raw)
    lost = 1 - np.linalg.norm(fewer.kspace) ** 2 / np.linalg.norm(raw.kspace) ** 2
    print(f"{fewer.kspace.shape[1]} coils lose {100 * lost:.3f} % of the energy")
    assert fewer.kspace.shape[1] <= MOST_COILS and lost < 0.01
    np.testing.assert_array_equal(fewer.mask, raw.mask)
    assert (fewer.kspace[..., raw.mask == 0] == 0).all()
    assert any("32 coils compressed to" in note for note in fewer.notes)
    head = phantom[:1] > 0.1
    before, after = (sense(prepare(r, 0.002))[head] for r in (raw, fewer))
    print(f"image changes by {np.linalg.norm(after - before) / np.linalg.norm(before):.4f}")
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)
    assert compressed(fewer) is fewer


def test_compressed_noise_is_still_white():
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(1, 20, 64, 64)) + 1j * rng.normal(size=(1, 20, 64, 64))).astype(np.complex64)
    few = compressed(check_kspace({"kspace": kspace})).kspace
    found = sample_covariance(few[0].reshape(few.shape[1], -1))
    np.testing.assert_allclose(found, 2 * np.eye(len(found)), atol=0.25)


def test_an_affine_beside_an_array_turns_it_and_its_maps(tmp_path, phantom):
    """Rows that grow to A and columns to R: the prepared acquisition grows to P and L and shows the same head."""
    image = phantom[:1, ::-1, ::-1]
    maps = birdcage_maps((96, 80), 4)
    np.savez(
        tmp_path / "a.npz",
        kspace=fft2c(maps * image[:, None]).astype(np.complex64),
        coil_maps=maps,
        noise_std=0.001,
        affine=np.array([[0, 0, 2.0, -80], [0, 2.0, 0, -96], [5.0, 0, 0, 0], [0, 0, 0, 1]]),
    )
    raw = read_kspace(tmp_path / "a.npz")
    assert raw.voxel_size_mm == (2.0, 2.0, 5.0)
    acquisition = prepare(raw)
    np.testing.assert_allclose(acquisition.affine @ [0, 0, 0, 1], [78, 94, 0, 1])
    np.testing.assert_allclose(np.diag(acquisition.affine[1:3, [1, 2]][::-1]), [0, 0], atol=1e-9)
    found = sense(acquisition, 1e-5)
    assert np.linalg.norm(found - phantom[:1]) < 0.01 * np.linalg.norm(phantom[:1])
    once = preprocessed(raw)
    np.testing.assert_array_equal(preprocessed(once).kspace, once.kspace)
