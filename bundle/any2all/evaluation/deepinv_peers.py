r"""deepinv's DPS and DiffPIR on our prior and our operators: the sampler is what differs from ours.

deepinv works on images u in [0, 1] with additive noise, we on x = 2u - 1 noised to a level k:

    ==============  =========================================================================
    D(u_σ, σ)       deepinv's denoiser, E[u | u_σ = u + σ ε]
    k(σ)            the level whose σ_k is nearest to 2σ on a logarithmic scale; all channels share it
    D(u_σ, σ)       = (x0_hat(sqrt(abar_k) (2 u_σ - 1), k) + 1) / 2
    A, y            all measured channels as real planes (B, P, H, W): an available image is one plane, the k-space
                    of one coil is two, its real and its imaginary part
    ==============  =========================================================================

Inner products of the planes are the Re <a, b> of our operators, so that the adjoint is Re(A^H y) in both worlds.

The settings of ``evaluate.json`` are the best of a few on subject16 (T2FLAIR from R4+T1 and CT from T1+T2star, PSNR of
one sample). DPS, one slice, 200 of its 1000 steps: weight 100: 19.9 and 25.3 dB, 1000: 27.0 and 30.7, 3000: 26.7 and
not tried. DiffPIR, means of two slices: deepinv's own λ = 7, ζ = 0.1: 24.2 and 18.6 dB; λ = 1, ζ = 1: 29.3 and 25.8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..diffusion.prior import NetworkPrior, Prior
from ..kspace.acquisition import Acquisition
from ..physics.measurements import Measurements
from ..samplers.base import all_at
from ..samplers.noise import seeded
from .deepinv_import import import_deepinv
from .peers import SUBJECT, Capabilities, measurements_of, refuse_what_it_cannot, volume_shape

DPS_STEPS, DIFFPIR_STEPS = 1000, 100  # deepinv's defaults
IMAGE_NOISE_STD = 0.01  # complex, in u: what is believed of images where no k-space says how noisy it is
Solve = Callable[[Tensor, Any, int], Tensor]


class PriorDenoiser(torch.nn.Module):
    """A prior as deepinv's denoiser, see the module."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        self.log_sigma = torch.tensor([prior.schedule.sigma2(k) for k in range(1, prior.schedule.steps + 1)]).log() / 2

    def level(self, sigma: float) -> int:
        """k(σ), at least 1."""
        wanted = torch.tensor(2 * max(sigma, 1e-12)).log()
        return 1 + int((self.log_sigma - wanted).abs().argmin())

    def forward(self, u: Tensor, sigma: Tensor | float) -> Tensor:
        """D(u_σ, σ) of (B, M, H, W), differentiable in u; one σ for all."""
        k = self.level(float(sigma))
        x = self.prior.schedule.at(k) ** 0.5 * (2 * u - 1)
        return (self.prior.x0_hat(x, all_at(k, x)) + 1) / 2


class StackedOperator:
    """A of all measured channels of some slices, between stacks (B, M, H, W) in u and real planes (B, P, H, W).

    Args:
        measurements: of these slices, in u.
        channels: M.
    """

    def __init__(self, measurements: Measurements, channels: int) -> None:
        self.measurements, self.channels = measurements, channels

    def forward(self, u: Tensor) -> Tensor:
        """A u."""
        given = self.measurements
        images = [u[:, m, None] for m in given.available]
        raw = [_planes(given.channels[m].operator.forward(u[:, m])) for m in given.undersampled]
        return torch.cat([*images, *raw], dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        """Re(A^H y); zero in missing channels."""
        given = self.measurements
        stack = [torch.zeros_like(y[:, 0])] * self.channels
        for plane, m in enumerate(given.available):
            stack[m] = y[:, plane]
        start = len(given.available)
        for m in given.undersampled:
            planes = 2 * given.channels[m].data.shape[1]
            stack[m] = given.channels[m].operator.adjoint(_from_planes(y[:, start : start + planes]))
            start += planes
        return torch.stack(stack, dim=1)

    @property
    def data(self) -> Tensor:
        """y."""
        given = self.measurements
        images = [given.channels[m].data[:, None] for m in given.available]
        return torch.cat([*images, *(_planes(given.channels[m].data) for m in given.undersampled)], dim=1)

    @property
    def sigma(self) -> float:
        """Noise std of one real plane in u, that of the noisiest k-space; deepinv knows one for all planes."""
        stds = [self.measurements.channels[m].noise_std for m in self.measurements.undersampled]
        return max(stds, default=IMAGE_NOISE_STD) / 2**0.5

    def physics(self, deepinv: ModuleType) -> Any:
        """The same as ``deepinv.physics.LinearPhysics``."""
        noise = deepinv.physics.GaussianNoise(sigma=self.sigma)
        return deepinv.physics.LinearPhysics(
            A=lambda u, **_: self.forward(u), A_adjoint=lambda y, **_: self.adjoint(y), noise_model=noise
        )


def _planes(kspace: Tensor) -> Tensor:
    """(B, C, H, W) complex → (B, 2 C, H, W), real parts first."""
    return torch.cat([kspace.real, kspace.imag], dim=1)


def _from_planes(planes: Tensor) -> Tensor:
    real, imaginary = planes.chunk(2, dim=1)
    return torch.complex(real.contiguous(), imaginary.contiguous())


@dataclass(frozen=True, eq=False)
class DeepinvPeer(ABC):
    """A sampler of deepinv on our prior, one slice of one sample at a time.

    deepinv draws a batch from one generator. So each row runs alone with a seed of its own, and no result depends on a
    batch.
    """

    prior: NetworkPrior
    name: str

    capabilities = Capabilities(any_mask=True, kspace=True, mixed=True, samples=True)

    @abstractmethod
    def solver(self, deepinv: ModuleType) -> Solve:
        """``solve(y, physics, seed)`` → a sample (1, M, H, W) in u."""

    @abstractmethod
    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        """See `Peer.passes`."""

    def can(self, measured: Collection[str], available: Collection[str], target: str) -> bool:
        known = {*measured, *available, target} <= set(self.prior.stack.names)
        return known and bool(measured or available) and target not in available

    def predict(
        self,
        measurements: Mapping[str, Acquisition],
        available: Mapping[str, Tensor],
        targets: Sequence[str],
        samples: int = 1,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """See `Peer.predict`. Raises Any2allError also where deepinv cannot be imported."""
        refuse_what_it_cannot(self, measurements, available, targets)
        deepinv, stack = import_deepinv(), self.prior.stack
        slices, height, width = volume_shape(measurements, available)
        given, solve = measurements_of(stack, measurements, available), self.solver(deepinv)
        drawn = torch.empty(samples, slices, len(stack), height, width)
        for z in range(slices):
            operator = StackedOperator(given.select(torch.tensor([z])).to(self.prior.device), len(stack))
            physics = operator.physics(deepinv).to(self.prior.device)
            for k in range(samples):
                row_seed = 1 + seeded(seed, SUBJECT, z, k, self.name).initial_seed() % (2**31 - 1)  # deepinv skips 0
                drawn[k, z] = solve(operator.data, physics, row_seed)[0].float().cpu()
        return {target: drawn[:, :, stack.index(target)] for target in targets}


@dataclass(frozen=True, eq=False)
class DeepinvDPS(DeepinvPeer):
    """``deepinv.sampling.DPS``: linear VP schedule, DDPM steps, gradient of the residual's norm (Chung et al., 2023).

    ``steps`` and ``weight`` (of that gradient) are deepinv's ``num_steps`` and ``weight``.
    """

    name: str = "deepinv_DPS"
    steps: int = DPS_STEPS
    weight: float = 1.0

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        return 2 * (self.steps - 1)  # a pass and a vector–Jacobian product between every two time points

    def solver(self, deepinv: ModuleType) -> Solve:
        device = self.prior.device
        sampler = deepinv.sampling.DPS(
            PriorDenoiser(self.prior),
            num_steps=self.steps,
            weight=self.weight,
            device=device,
            rng=torch.Generator(device),
        )
        return lambda y, physics, seed: sampler(y, physics, x_init=(1, self.prior.channels, *y.shape[-2:]), seed=seed)


@dataclass(frozen=True, eq=False)
class DeepinvDiffPIR(DeepinvPeer):
    """``deepinv.sampling.DiffPIR``: a proximal step on x0_hat, then noise (Zhu et al., 2023).

    ``steps``, ``zeta`` (share of fresh noise) and ``lamda`` (weight of the prior) are deepinv's ``max_iter``, ``zeta``
    and ``lambda_``.
    """

    name: str = "deepinv_DiffPIR"
    steps: int = DIFFPIR_STEPS
    zeta: float = 0.1
    lamda: float = 7.0

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        return self.steps

    def solver(self, deepinv: ModuleType) -> Solve:
        sampler = deepinv.sampling.DiffPIR(
            PriorDenoiser(self.prior),
            deepinv.optim.data_fidelity.L2(),
            max_iter=self.steps,
            zeta=self.zeta,
            lambda_=self.lamda,
            device=self.prior.device,
        )

        def solve(y: Tensor, physics: Any, seed: int) -> Tensor:
            devices = [self.prior.device] if self.prior.device.type == "cuda" else []
            with torch.random.fork_rng(devices):  # DiffPIR seeds and draws from torch's global generator
                return sampler(y, physics, seed=seed)

        return solve
