"""deepinv (https://deepinv.org), imported also where packages that its samplers never use are absent or broken.

``import deepinv`` takes in its data sets and transforms as well, and with them torchvision, natsort and torchmetrics.
torchvision does not import beside a CPU build of torch from another source. Whichever of them cannot be imported is
stood in for while deepinv is imported, and at no other time: what is taken from a stand-in raises when it is used.
Where all of them import (``pip install any2all[peers]`` with a torchvision that fits torch) nothing is stood in for.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from ..errors import Any2allError

UNUSED = ("torchvision", "natsort", "torchmetrics")  # of deepinv's own needs, those that its samplers do without


class StandIn(ModuleType):
    """A module that holds every name; using what it holds is an ImportError."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> None:
            raise ImportError(f"{self.__name__}.{name} is needed here, and {self.__name__} could not be imported")

        return type(name, (), {"__init__": refuse, "__module__": self.__name__})


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a `StandIn` for these packages and all that lies in them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = tuple(packages)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] not in self.packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> StandIn:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def standing_in(packages: Sequence[str]) -> Iterator[None]:
    """While it lasts, these packages import as stand-ins; afterwards nothing of them is left among the modules."""
    finder = StandInFinder(packages)
    _forget(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget(packages)


def import_deepinv() -> ModuleType:
    """The package. Raises Any2allError where it is not installed, or lacks more than `UNUSED`."""
    if "deepinv" in sys.modules:
        return sys.modules["deepinv"]
    if importlib.util.find_spec("deepinv") is None:
        raise _absent("deepinv is not installed")
    try:
        with standing_in([name for name in UNUSED if not _imports(name)]):
            return importlib.import_module("deepinv")
    except (ImportError, RuntimeError, AttributeError, TypeError) as error:
        raise _absent(f"deepinv cannot be imported: {error}") from error


def is_available() -> bool:
    """Whether `import_deepinv` gives the package."""
    try:
        import_deepinv()
    except Any2allError:
        return False
    return True


def _absent(message: str) -> Any2allError:
    return Any2allError(message, key="method_list.peer", hint="pip install 'any2all[peers]'", code="not_installed")


def _imports(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # a torchvision that does not fit its torch fails with RuntimeError, and others in other ways
        return False
    return True


def _forget(packages: Sequence[str]) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in packages]:
        del sys.modules[name]
