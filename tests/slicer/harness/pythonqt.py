"""Proxies that give PySide6 objects the manners of PythonQt, the Qt binding inside Slicer.

PythonQt in brief: a Q_PROPERTY is an attribute (``label.text``, ``label.text = "x"``), ``label.setText("x")`` works as
well; ``button.connect("clicked(bool)", f)`` and ``button.clicked.connect(f)`` both connect; enum values sit directly on
the class; an exception in a slot is printed and does not reach the caller. A plain wrapper takes no new attributes.
(PythonQt: src/PythonQtInstanceWrapper.cpp, src/PythonQtSignalReceiver.cpp.)
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
import time
import types
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore

from . import problems

# Names that PySide6 or Qt 6 have and a Slicer with Qt 5.15 has not; `exec` is spelt `exec_` in PythonQt.
NOT_IN_SLICER = {"exec", "checkStateChanged", "connectNotify", "disconnectNotify", "staticMetaObject", "sender"}
TEXT_TYPES = {"QString"}
FLOAT_TYPES = {"double", "float"}

_proxy_classes: dict[type, type] = {}
_connections: dict[tuple[int, str, Callable], tuple[Callable, QtCore.QObject]] = {}


class SlowestSlot:
    """The longest time for which one slot kept the panel from answering.

    Attributes:
        seconds, name: by the clock, and which slot that was.
        worked, hardest: on the processor alone, and which slot that was.
    """

    def __init__(self) -> None:
        self.forget()

    def note(self, seconds: float, worked: float, function: Callable) -> None:
        name = getattr(function, "__qualname__", repr(function))
        if seconds > self.seconds:
            self.seconds, self.name = seconds, name
        if worked > self.worked:
            self.worked, self.hardest = worked, name

    def forget(self) -> None:
        self.seconds, self.name, self.worked, self.hardest = 0.0, "", 0.0, ""


slowest_slot = SlowestSlot()


def forget_connections() -> None:
    """Drop what tests before this one connected."""
    _connections.clear()


def accepted_arguments(function: Callable) -> int | None:
    """How many arguments PythonQt would pass at most, or None for all: it counts only those of plain functions."""
    target = function.__func__ if inspect.ismethod(function) else function
    if not inspect.isfunction(target) or target.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return target.__code__.co_argcount - (1 if inspect.ismethod(function) else 0)


def guarded(function: Callable) -> Callable:
    """``function`` as a slot: it gets as many arguments as it takes, and what it raises is collected."""
    limit = accepted_arguments(function)

    def slot(*arguments: Any) -> None:
        began, worked = time.perf_counter(), time.thread_time()
        try:
            function(*[wrap(argument) for argument in arguments[:limit]])
        except Exception:
            problems.report_exception(f"exception in slot {getattr(function, '__qualname__', function)}")
        slowest_slot.note(time.perf_counter() - began, time.thread_time() - worked, function)

    return slot


def wrap(value: Any) -> Any:
    """A PySide6 object as its proxy; lists are wrapped item by item; everything else stays."""
    if isinstance(value, (list, tuple)):
        return type(value)(wrap(item) for item in value)
    if isinstance(value, Proxy) or not isinstance(value, shiboken6.Shiboken.Object) or isinstance(value, enum.Enum):
        return value
    return proxy_class(type(value))._of(value)


def unwrap(value: Any) -> Any:
    """The reverse of :func:`wrap`, for arguments. Functions become guarded slots."""
    if isinstance(value, Proxy):
        return value._native_object()
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(item) for item in value)
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        return guarded(value)
    return value


def _calling(function: Callable) -> Callable:
    def call(*arguments: Any) -> Any:
        return wrap(function(*[unwrap(argument) for argument in arguments]))

    call.__name__ = getattr(function, "__name__", "call")
    return call


class ProxyMeta(type):
    """Class attributes: enum values and static functions of the native class, nothing else."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(cls._native, name, None) if name not in NOT_IN_SLICER else None
        if isinstance(value, (enum.Enum, int)):
            return value
        if isinstance(value, types.BuiltinFunctionType):
            return _calling(value)
        raise AttributeError(f"PythonQt's {cls.__name__} has no class attribute {name!r}")


class Signal:
    """``obj.clicked``: the first overload of a signal, to connect, disconnect or emit by calling."""

    def __init__(self, proxy: Proxy, signature: str) -> None:
        self._proxy, self._signature = proxy, signature

    def connect(self, function: Callable) -> bool:
        return self._proxy.connect(self._signature, function)

    def disconnect(self, function: Callable) -> bool:
        return self._proxy.disconnect(self._signature, function)

    def __call__(self, *arguments: Any) -> None:
        name = self._signature.split("(")[0]
        getattr(self._proxy._native_object(), name).emit(*[unwrap(argument) for argument in arguments])

    emit = __call__


class Proxy(metaclass=ProxyMeta):
    """One PySide6 object as PythonQt would show it."""

    _native: type = object

    def __init__(self, *arguments: Any) -> None:
        native = self._native(*[unwrap(argument) for argument in arguments])
        object.__setattr__(self, "_object", native)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        overridden = [name for name in vars(cls) if not name.startswith("_") and hasattr(cls._native, name)]
        if "_native" not in vars(cls) and overridden:
            raise TypeError(f"{cls.__name__}: the harness cannot override Qt's {', '.join(overridden)}")

    @classmethod
    def _of(cls, native: Any) -> Proxy:
        proxy = cls.__new__(cls)
        object.__setattr__(proxy, "_object", native)
        return proxy

    def _native_object(self) -> Any:
        if "_object" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}: Qt's own __init__ was not called")
        if not shiboken6.isValid(self._object):
            raise ValueError(f"{type(self).__name__}: the Qt object was destroyed")
        return self._object

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in NOT_IN_SLICER:
            raise AttributeError(f"PythonQt's {type(self).__name__} has no attribute {name!r}")
        native = self._native_object()
        if isinstance(native, QtCore.QObject):
            if property_of(native, name) or name.encode() in native.dynamicPropertyNames():
                return wrap(native.property(_property_name(name)))
            signatures = signals_of(native, name)
            if signatures:
                return Signal(self, signatures[0])
        value = getattr(native, name, None)
        if isinstance(value, enum.Enum):
            return value
        if not callable(value) or isinstance(value, type):
            raise AttributeError(f"PythonQt's {type(self).__name__} has no attribute {name!r}")
        return _calling(value)

    def __setattr__(self, name: str, value: Any) -> None:
        native = self.__dict__.get("_object")
        prop = property_of(native, name) if isinstance(native, QtCore.QObject) else None
        if prop:
            write_property(native, prop, value)
        elif "_native" in vars(type(self)) or (native is not None and hasattr(native, name)):
            raise AttributeError(f"{name!r} of {type(self).__name__} does not exist or cannot be set")
        else:
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Proxy):
            return False
        mine, theirs = self._object, other._object
        return mine is theirs or (not isinstance(mine, QtCore.QObject) and bool(mine == theirs))

    def __hash__(self) -> int:
        return id(self._object)

    def __bool__(self) -> bool:
        return shiboken6.isValid(self._object)

    def __repr__(self) -> str:
        return f"{type(self).__name__} (PythonQt look-alike of {self._object!r})"


class ObjectProxy(Proxy):
    """What PythonQt adds to every QObject."""

    _native = QtCore.QObject

    def connect(self, signal: str, *target: Any) -> bool:
        """``connect("clicked(bool)", f)`` or ``connect("clicked(bool)", receiver, "setEnabled(bool)")``."""
        native, signature = self._native_object(), self._signature_of(signal)
        function = target[0] if len(target) == 1 else getattr(target[0], target[1].split("(")[0])
        if not callable(function):
            raise ValueError(f"{signal}: {function!r} cannot be called")
        limit = len([part for part in signature[signature.index("(") + 1 : -1].split(",") if part])
        inner = guarded(function)

        def slot(*arguments: Any) -> None:
            inner(*arguments[:limit])

        _connections[(id(native), signature, function)] = (slot, native)
        return bool(QtCore.QObject.connect(native, QtCore.SIGNAL(signature), slot))

    def disconnect(self, signal: str, function: Callable) -> bool:
        """Undo one ``connect``; False where there was none."""
        native, signature = self._native_object(), self._signature_of(signal)
        slot, _ = _connections.pop((id(native), signature, function), (None, None))
        return slot is not None and bool(QtCore.QObject.disconnect(native, QtCore.SIGNAL(signature), slot))

    def _signature_of(self, signal: str) -> str:
        plain = re.sub(r"vtk\w+\s*\*", "PyObject", re.sub(r"\bconst\b|&", "", signal))
        signature = QtCore.QMetaObject.normalizedSignature(plain).data().decode()
        name = signature.split("(")[0]
        if name in NOT_IN_SLICER or signature not in signals_of(self._native_object(), name):
            raise ValueError(f"{type(self).__name__} has no signal {signal!r}")
        return signature

    def className(self) -> str:
        return type(self._native_object()).__name__

    def inherits(self, name: str) -> bool:
        return any(base.__name__ == name for base in type(self._native_object()).__mro__)

    def delete(self) -> None:
        shiboken6.delete(self._native_object())

    def findChild(self, kind: type | str, name: str = "") -> Proxy | None:
        found = self.findChildren(kind, name)
        return found[0] if found else None

    def findChildren(self, kind: type | str, name: str = "") -> list[Proxy]:
        """Descendants of a class (``qt.QLabel`` or ``"QLabel"``), and of that object name where one is given."""
        wanted = kind if isinstance(kind, str) else kind._native.__name__
        children = wrap(self._native_object().findChildren(QtCore.QObject))
        return [child for child in children if child.inherits(wanted) and name in ("", child.objectName)]


def _property_name(name: str) -> str:
    return "objectName" if name == "name" else name


def property_of(native: QtCore.QObject, name: str) -> QtCore.QMetaProperty | None:
    """The Q_PROPERTY of that name; ``name`` is PythonQt's alias of ``objectName``."""
    meta = native.metaObject()
    index = meta.indexOfProperty(_property_name(name))
    return meta.property(index) if index >= 0 else None


def signals_of(native: QtCore.QObject, name: str) -> list[str]:
    """Signatures of the signals of that name; the one with most arguments first, as the class declares it."""
    meta = native.metaObject()
    methods = (meta.method(index) for index in range(meta.methodCount()))
    return [
        method.methodSignature().data().decode()
        for method in methods
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal and method.name().data().decode() == name
    ]


def write_property(native: QtCore.QObject, prop: QtCore.QMetaProperty, value: Any) -> None:
    """Set a property. Stricter than Slicer in the type: text takes str, a flag takes bool, no silent conversion.

    Raises: AttributeError, as PythonQt, where the property is read-only or the value is of a wrong type.
    """
    kind = prop.typeName()
    wrong = (
        (kind in TEXT_TYPES and not isinstance(value, str))
        or (kind == "bool" and not isinstance(value, bool))
        or (kind == "int" and type(value) is not int)
        or (kind in FLOAT_TYPES and type(value) not in (int, float))
    )
    if wrong or not prop.isWritable() or not native.setProperty(prop.name(), unwrap(value)):
        raise AttributeError(f"property {prop.name()!r} ({kind}) of {type(native).__name__} does not take {value!r}")


def proxy_class(native: type) -> type:
    """The proxy class of a PySide6 class, made once; its bases mirror Qt's."""
    if native not in _proxy_classes:
        known = [base for base in native.__mro__[1:] if issubclass(base, shiboken6.Shiboken.Object)]
        parents = [base for base in native.__bases__ if base in known and base is not shiboken6.Shiboken.Object]
        bases = tuple(proxy_class(base) for base in parents) or (Proxy,)
        _proxy_classes[native] = ProxyMeta(native.__name__, bases, {"_native": native})
    return _proxy_classes[native]


_proxy_classes[QtCore.QObject] = ObjectProxy
ObjectProxy.__name__ = "QObject"
