"""From a configuration's methods to peers that are ready to predict; what is not there is left out, in words."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..cdm.source import CDMSource, OtherGridError
from ..diffusion.prior import NetworkPrior, load_prior
from ..errors import Any2allError
from ..samplers import MCS
from ..scores.baselines import MEAN_IMAGE
from . import deepinv_import
from .cdm_peers import cdm_peers
from .deepinv_peers import DeepinvDiffPIR, DeepinvDPS
from .peers import MatchedCopy, MeanImage, Peer, SampledPeer, tuned_reconstructions
from .tasks import CDM_PEERS, Method


class LeftOutError(Any2allError):
    """Something that a method needs is not there, which is no one's fault: the evaluation goes on without it."""


@dataclass
class Roster:
    """Makes the peers of methods.

    Args:
        prior: the prior that is evaluated.
        models: folder of other priors that methods name, and of CDM; None: there are none.
        mean_image: (M, H, W) in u, the baseline of synthetic images.
        training: gives training slices (N, M, H, W) in u, when a peer has to be fitted.
        batch_size: rows (slice of a sample) that the network sees at once.
    """

    prior: NetworkPrior
    models: Path | None = None
    mean_image: np.ndarray | None = None
    training: Callable[[], Tensor] | None = None
    batch_size: int = 24

    def __post_init__(self) -> None:
        self._others: dict[str, NetworkPrior] = {}
        self._cdm_file = CDMSource(self.models / "cdm.pt" if self.models else None, self.prior.device)

    def peer(self, method: Method, kind: str) -> Peer:
        """The method, ready to predict cases of a kind.

        Raises LeftOutError where what it needs is not there, Any2allError where it cannot be used.
        """
        if method.sampler is not None:
            sampler, prior = method.build_sampler(self.prior.stack), self.prior_of(method)
            if isinstance(sampler, MCS) and sampler.centre:
                sampler = replace(sampler, mean_network=prior.mean_network)
                if sampler.steps == 1 and prior.mean_network is None:
                    raise LeftOutError("this prior has no network for means", key=f"method_list.{method.name}")
            return SampledPeer(method.name, prior, sampler, self.batch_size, self._rho(method, prior))
        builders: dict[str, Callable[[Method], Peer]] = {
            MEAN_IMAGE: self._mean_image,
            MatchedCopy.name: lambda _: self._matched_copy,
            DeepinvDPS.name: self._dps,
            DeepinvDiffPIR.name: self._diffpir,
            **dict.fromkeys(CDM_PEERS, self._cdm),
        }
        if method.peer in builders:
            return builders[method.peer](method)
        return tuned_reconstructions("real" if kind == "real" else "rendered")[method.peer]

    @staticmethod
    def _rho(method: Method, prior: NetworkPrior) -> float | tuple[float, ...]:
        return prior.card.noise_correlation() if method.rho == "prior" else method.rho

    def prior_of(self, method: Method) -> NetworkPrior:
        """The prior that a method samples from."""
        return self.prior if method.model is None else self.other(method.model)

    def other(self, name: str) -> NetworkPrior:
        """Another prior beside the evaluated one, such as ``shared.pt``."""
        if name not in self._others:
            self._others[name] = prior_beside(self.prior, self.models, name)
        return self._others[name]

    @property
    def checksums(self) -> list[str]:
        """Of the evaluated prior's weights, and of CDM's where there is one that can be tried beside it."""
        found = [self.prior.card.sha256]
        with suppress(Any2allError):
            found.append(self._cdm_file.card(self.prior.card).sha256)
        return [sha256 for sha256 in found if sha256]

    def _mean_image(self, method: Method) -> Peer:
        if self.mean_image is None:
            raise LeftOutError("this prior has no mean training image", key=f"method_list.{method.name}")
        return MeanImage(self.mean_image, self.prior.stack)

    @cached_property
    def _matched_copy(self) -> MatchedCopy:
        if self.training is None:
            raise LeftOutError("there are no training slices to fit it on", key=f"method_list.{MatchedCopy.name}")
        return MatchedCopy(self.training(), self.prior.stack)

    def _dps(self, method: Method) -> Peer:
        given = _given(steps=method.steps, weight=method.weight)
        return replace(DeepinvDPS(self._prior_of_deepinv(method), method.name), **given)

    def _diffpir(self, method: Method) -> Peer:
        given = _given(steps=method.steps, zeta=method.zeta, lamda=method.lamda)
        return replace(DeepinvDiffPIR(self._prior_of_deepinv(method), method.name), **given)

    def _cdm(self, method: Method) -> Peer:
        if not self._cdm_file.present:
            raise LeftOutError("cdm.pt is not beside the evaluated prior", key=f"method_list.{method.name}")
        try:
            cdm = self._cdm_file.load(self.prior.card)
        except OtherGridError as error:
            raise LeftOutError(error.message, key=f"method_list.{method.name}") from error
        peers = cdm_peers(cdm, self.batch_size)
        return replace(peers[method.peer], rho=self._rho(method, self.prior))

    def _prior_of_deepinv(self, method: Method) -> NetworkPrior:
        try:
            deepinv_import.import_deepinv()
        except Any2allError as error:
            raise LeftOutError(error.message, key=error.key, value=method.peer, hint=error.hint) from error
        return self.prior_of(method)


def prior_beside(prior: NetworkPrior, folder: Path | None, name: str) -> NetworkPrior:
    """Another prior to compare with, from the folder of the evaluated one.

    Raises LeftOutError where there is no such file, or its grid or stack is another.
    """
    if folder is None or not (folder / name).is_file():
        raise LeftOutError(f"{name} is not beside the evaluated prior", key="method_list.model", value=name)
    other = load_prior(folder / name, prior.device)
    ours, theirs = ((card.matrix, card.spacing_mm, card.stack) for card in (prior.card, other.card))
    if ours != theirs:
        raise LeftOutError(f"{name} has another grid or stack than the evaluated prior", key="method_list.model")
    return other


def _given(**settings: Any) -> dict[str, Any]:
    """What a configuration says; the rest keeps its default."""
    return {key: value for key, value in settings.items() if value is not None}
