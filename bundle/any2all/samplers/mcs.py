r"""MCS, multimodal conditional sampling (ours; needs a prior of the ``per_modality`` recipe; METHOD §3).

Notation
    =========  ====================================================================
    k, k'      level of the channels that are sampled; given images stay at level 0
    x0_hat     E[x_0 | x_k, given images]
    x0'        x0_hat after data consistency
    η          how much of the noise is fresh, with DDIM's β̃
    =========  ====================================================================

Each step:

    1.  x0_hat = E[x_0 | x_k of the sampled channels, given images clean]
        where nothing is measured, tissue contrasts are corrected by what x_k says of them (see `Contrast`)
    2.  measured channels: x0' from k-space or a degraded image, ``calibrated`` or ``moment`` (see `consistency`);
        channels that couple slices: ``calibrated``, whole volumes between the halves of a step (`VolumeSampler`)
    3.  x0' = clamp(x0'),  eps_hat = (x_k - sqrt(abar_k) x0') / sqrt(1 - abar_k)
    4.  x_{k'} = sqrt(abar_{k'}) x0' + sqrt(1 - abar_{k'} - η² β̃²) eps_hat + η β̃ z

Where measured and missing images meet, the stack is sampled twice (`refill`): p(missing, measured | y) =
p(measured | y) p(missing | measured), since y says nothing more of the missing images once the measured ones are known.
So what was reconstructed is then given to the network clean, like any given image, and the missing channels start anew.

Samples come in antithetic pairs (see `VolumeNoise`). Each is drawn as if it were alone, and the mean of four is nearly
the mean of any number, for most of a sample is odd in its noise.

One step on its own is the posterior mean E[x_missing | given images] at k = 1000. So the first estimates of all samples
state the mean that their samples should have (where the stack is sampled twice: given each reconstruction, the mean of
Rao and Blackwell). A chain that feeds on its own estimates drifts from it, far on real scans, whose missing images the
prior has never seen half sampled; the first estimates for their part know less of what comes of details. ``centre``
moves all samples of a missing image by one and the same image, so far towards the mean that was stated. Where there is
a network that was trained for nothing but that pass (``mean_network``), it states the mean, in a pass of its own. In
the air around the head, where that mean is black, it is all there is to say, and stands in place of every sample
(validation: SSIM of CT 0.84 → 0.91).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..diffusion.prior import Prior
from ..diffusion.schedule import Schedule, log_snr_levels, uniform_pairs
from ..physics.measurements import Measurements
from .base import Estimates, Pair, Problem, Progress, Rows, VolumeSampler
from .consistency import calibrated_step, cg_iterations, moment_step
from .noise import VolumeNoise
from .surroundings import AIR, around_the_head
from .updates import beta_tilde, ddim_update, dpm_solver_update, half_log_snr, noise_estimate

# Above this noise-to-signal ratio C is the whole prior's covariance, too much for two iterations. On analytic priors
# the exact solve with r_k² I leaves a third less bias there (0.17 against 0.25), and it needs no J of a network.
MOMENT_MAX_SIGMA2 = 10.0


@dataclass
class MCS(VolumeSampler):
    """See the module.

    Args:
        steps: network passes of each sample, without the vector–Jacobian products of ``moment``.
        consistency: which form step 2 takes.
        solver: ``ddim`` (levels uniform in k) or ``dpm`` (DPM-Solver++(2M), levels uniform in log-SNR, no fresh noise).
        clamp: images are those of a head in the prior range, and x0' is held there (off for analytic priors).
        refill: sample missing images a second time, given the reconstructed ones.
        antithetic: samples 2i and 2i + 1 take opposite noise; the std (n - 1) of K is then sqrt(K / (K - 1)) too wide.
        centre: of several samples' missing images, how far their mean moves to that of their first estimates, 0 to 1;
            with one step, how far its estimate moves to that of ``mean_network``.
        mean_network: states that mean in place of the first estimates.
        wanted: channels that are asked for; where no missing one is among them nothing is refilled. None: all.
        idle: channels that are neither measured nor wanted; they stay pure noise at k = 1000.
    """

    steps: int = 10
    eta: float = 0.85
    consistency: Literal["calibrated", "moment"] = "moment"
    solver: Literal["ddim", "dpm"] = "ddim"
    clamp: bool = True
    refill: bool = True
    antithetic: bool = True
    centre: float = 0.0
    mean_network: Prior | None = None
    wanted: frozenset[int] | None = None
    idle: frozenset[int] = frozenset()
    name = "mcs"

    def passes_of_step(self, k: int, k_next: int, schedule: Schedule, undersampled: bool) -> int:
        takes = undersampled and self._takes_moments(k, k_next, schedule)
        return 1 + (cg_iterations(k, k_next, schedule) if takes else 0)

    def passes(self, schedule: Schedule, undersampled: bool, missing: bool) -> int:
        again = len(self.pairs(schedule)) if self.refill and undersampled and missing else 0
        of_mean = missing and self.centre > 0 and self.mean_network is not None
        return super().passes(schedule, undersampled, missing) + again + of_mean

    def pairs(self, schedule: Schedule) -> list[Pair]:
        if self.solver == "ddim" or self.steps < 2:
            return uniform_pairs(self.steps, schedule.steps)
        levels = [schedule.steps, *log_snr_levels(schedule, self.steps - 1)]
        return list(zip(levels, [*levels[1:], 0]))

    def start(self, x: Tensor, rows: Rows) -> Tensor:
        return rows.clean(x)

    def sample(
        self,
        prior: Prior,
        problem: Problem,
        noise: VolumeNoise,
        samples: int = 1,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        first: Tensor | None = None,
    ) -> Tensor:
        """See `Sampler.sample` → (samples, Z, M, H, W).

        Where the stack is sampled twice, ``first`` is of the second time; where ``mean_network`` states the mean, it is
        what that states of each sample, so that its noise is averaged, too.
        """
        missing = set(problem.measurements.missing)
        missing &= missing if self.wanted is None else self.wanted
        again = self.refill and bool(problem.consistency and missing)
        several = samples > 1 or self.steps == 1  # a single sample of many steps stays a sample
        centred = missing if self.centre > 0 and several and (again or _knows_all(problem)) else set()
        by_network = bool(centred) and self.mean_network is not None
        if centred and first is None:
            first = torch.empty(samples, *problem.shape, dtype=noise.dtype)
        own_first = None if by_network else first
        steps, rows = len(self.pairs(prior.schedule)), samples * problem.shape[0]
        once = rows * super().passes(prior.schedule, bool(problem.consistency), False)
        twice = once + rows * steps * again
        total = twice + rows * by_network

        def report(before: int) -> Progress | None:
            return None if progress is None else lambda done, _: progress(before + done, total)

        noise = replace(noise, antithetic=self.antithetic)
        of_once = None if again else own_first
        x = super().sample(prior, problem, noise, samples, batch_size, device, report(0), cancelled, of_once)
        for k in range(samples * again):
            given, own = problem.with_reconstructed(x[k]), _noise_of(noise, "refill", k)
            before, kept = once + k * steps * problem.shape[0], None if own_first is None else own_first[k : k + 1]
            x[k] = super().sample(prior, given, own, 1, batch_size, device, report(before), cancelled, kept)[0]
        for k in range(samples * by_network):
            given, own = problem.with_reconstructed(x[k]) if again else problem, _noise_of(noise, "mean", k)
            one_pass, before = replace(self, steps=1, centre=0.0), twice + k * problem.shape[0]
            how = (1, batch_size, device, report(before), cancelled)
            first[k] = one_pass.sample(self.mean_network, given, own, *how)[0]
        if centred:
            self._centre(x, first, centred, problem)
        return x

    def _centre(self, x: Tensor, first: Tensor, centred: set[int], problem: Problem) -> None:
        """Move samples x (K, Z, M, H, W) of the channels towards the mean of ``first``, in place."""
        for m in centred:
            x[:, :, m] += self.centre * (first[:, :, m].mean(0) - x[:, :, m].mean(0))
        if self.clamp:
            given, measured = problem.measurements.available, problem.measurements.measured
            shown = [problem.measurements.channels[m].data for m in given] + [x[:, :, m].mean(0) for m in measured]
            around = around_the_head(shown)
            for m in centred:
                stated = first[:, :, m].mean(0)
                x[:, :, m] = torch.where(around & (stated < AIR), stated, x[:, :, m])
            x.clamp_(-1, 1)

    def estimate(self, prior: Prior, x: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        """Steps 1 and 2. The last step is always ``calibrated``: it leaves exactly what prior and data say."""
        sampled = self._sampled(prior.channels, rows)
        levels = self._levels(x, k, sampled)
        if not rows.consistency:
            with torch.no_grad():
                x0_hat = prior.x0_hat(x, levels)
                if prior.contrast is None or rows.measurements.measured:
                    return x0_hat
                return prior.contrast.corrected(x0_hat, x, levels, prior.schedule)
        if self._takes_moments(k, k_next, prior.schedule):
            return moment_step(prior, x, levels, k, sampled, rows, cg_iterations(k, k_next, prior.schedule))
        return calibrated_step(prior, x, levels, k, rows)

    def data_weight(self, prior: Prior, m: int, k: int, measurements: Measurements) -> float:
        companions = frozenset(measurements.available)
        return prior.error_variance(m, companions, k) / measurements.channels[m].variance

    @torch.no_grad()
    def update(self, schedule: Schedule, x: Tensor, x0: Tensor, k: int, k_next: int, rows: Rows) -> Tensor:
        """Steps 3 and 4."""
        abar, abar_next, x0 = schedule.at(k), schedule.at(k_next), rows.joined(x0)
        if self.clamp:
            x0 = x0.clamp(-1, 1)
        if k_next == 0:
            return rows.clean(x0)
        if self.solver == "dpm":
            rows.past[:] = [*rows.past[-1:], (k, x0)]
            x_next = dpm_solver_update(x, _extrapolated(rows.past, k_next, schedule), abar, abar_next)
        else:
            spread = self.eta * beta_tilde(abar, abar_next, "ddim")
            x_next = ddim_update(x0, noise_estimate(x, x0, abar), rows.noise(), abar_next, spread)
        for m in self.idle:
            x_next[:, m] = x[:, m]
        return rows.clean(x_next)

    def _sampled(self, channels: int, rows: Rows) -> tuple[int, ...]:
        """The channels that share level k: neither given nor idle."""
        return tuple(m for m in range(channels) if m not in rows.measurements.available and m not in self.idle)

    def _levels(self, x: Tensor, k: int, sampled: tuple[int, ...]) -> Tensor:
        levels = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
        levels[:, list(sampled)] = k
        levels[:, list(self.idle)] = 1000
        return levels

    def _takes_moments(self, k: int, k_next: int, schedule: Schedule) -> bool:
        return self.consistency == "moment" and k_next > 0 and schedule.sigma2(k) <= MOMENT_MAX_SIGMA2


def _noise_of(noise: VolumeNoise, purpose: str, sample: int) -> VolumeNoise:
    """Noise of one sample alone, for something else than drawing it."""
    return replace(noise, subject=f"{noise.subject}/{purpose}", first_sample=noise.first_sample + sample)


def _knows_all(problem: Problem) -> bool:
    """Whether what is stated at k = 1000 knows all there is: given images, and no measurement."""
    return bool(problem.measurements.available) and not problem.consistency


def _extrapolated(estimates: Estimates, k_next: int, schedule: Schedule) -> Tensor:
    """x0' over the step to k_next, from this estimate and the one before (DPM-Solver++(2M), Lu et al., Alg. 2)."""
    k, x0 = estimates[-1]
    if len(estimates) == 1:
        return x0
    k_last, x0_last = estimates[0]
    last, here, following = (half_log_snr(schedule.at(level)) for level in (k_last, k, k_next))
    return x0 + (x0 - x0_last) * (following - here) / (2 * (here - last))
