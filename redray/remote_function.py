"""What `@remote` makes of a function: something that is submitted with `.remote()` instead of being called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from redray import option_checks, signatures
from redray import options as option_records
from redray.current import current
from redray.refs import collecting

if TYPE_CHECKING:
    from redray.current import Session
    from redray.dag import FunctionNode
    from redray.functions import ExportedFunction

_WARN_BYTES, _MOST_BYTES = 10 * 2**20, 100 * 2**20


class RemoteFunction:
    """A function that runs elsewhere. Made by `@redray.remote`, never directly.

    `f.remote(...)` takes f's own parameters, each as a value or as the ref of one, and returns at once: an ObjectRef, a
    list of them with `num_returns=n`, None with `num_returns=0`, an ObjectRefGenerator if f uses `yield`.
    """

    def __init__(self, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
        """`given`: options that were checked already, by `options.check_task`."""
        if signatures.is_async(function):
            raise ValueError(
                f"'async def' cannot be a remote task: {_name(function)} needs an event loop of its own."
                " Wrap it in a function that calls asyncio.run(), or make it a method of an actor."
            )
        options = option_records.task_options(given, _name(function), signatures.is_generator(function))
        self._set_up(function, given, options, signatures.of_function(function))

    def _set_up(
        self,
        function: Callable[..., Any],
        given: Mapping[str, Any],
        options: option_records.TaskOptions,
        signature: signatures.Signature,
    ) -> None:
        self._function = function
        self._given = dict(given)
        self._options = options
        if options.runtime_env is not None:  # read and checked here, not where this is unpickled
            self._given["runtime_env"] = options.runtime_env
        self._signature = signature
        self._low, self._high = signature.low, signature.high
        self._num_returns = options.num_returns
        self._token: object = None  # of the session that has the export
        self._export: Any = None
        self._origin = self  # `.options()` shares the export of the function it came from
        functools.update_wrapper(self, function, updated=())

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a call.

        Raises:
            TypeError: the arguments do not fit the function, or one cannot be pickled.
            ValueError: the function with what it captures weighs more than 100 MiB.
        """
        if kwargs or not self._low <= len(args) <= self._high:
            self._signature.check(len(args), kwargs, self._options.name)
        session = current()
        if session.token is not self._token:
            self._attach(session)
        refs = session.submit_task(self._export, args, kwargs, self._options)
        return refs[0] if self._num_returns == 1 else several(refs, self._num_returns)

    def options(self, **given: Any) -> RemoteFunction:
        """The same function with other options: `f.options(num_cpus=2).remote(x)`. `f` itself stays as it is.

        Raises:
            TypeError: an option has the wrong type.
            ValueError: an option is unknown, out of range, or belongs into the decorator.
        """
        option_checks.check_task(given, in_options=True)
        other = RemoteFunction(self._function, {**self._given, **given})
        other._origin = self._origin
        return other

    def _remote(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **given: Any) -> Any:
        """`.options(**given).remote(*args, **kwargs)` in one call, as Ray spells it."""
        return self.options(**given).remote(*args, **(kwargs or {}))

    def bind(self, /, *args: Any, **kwargs: Any) -> FunctionNode:
        """Write the call down for later: see `redray.dag`."""
        from redray.dag import FunctionNode

        return FunctionNode(self, args, kwargs)

    def _attach(self, session: Session) -> None:
        origin = self._origin
        if origin._token is not session.token:
            origin._export = exported(self._function, _name(self._function), session)
            origin._token = session.token  # after the export: another thread looks at the token first
        self._export, self._token = origin._export, origin._token

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        name = f"{self._function.__module__}.{_name(self._function)}"
        raise TypeError(f"Remote functions cannot be called directly. Instead of {name}(), write {name}.remote().")

    def __reduce__(self) -> tuple[Any, ...]:
        # A function that calls itself is unpickled around this, and has no default values yet when this is made: what
        # is known of it travels along.
        return _load, (self._function, self._given, self._options, self._signature)

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function.__module__}.{_name(self._function)})"


def _load(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    options: option_records.TaskOptions,
    signature: signatures.Signature,
) -> RemoteFunction:
    loaded = RemoteFunction.__new__(RemoteFunction)
    loaded._set_up(function, given, options, signature)
    return loaded


def several(refs: list[Any], num_returns: int) -> Any:
    """What `.remote()` returns when it is not one ref: a generator alone, nothing, or the list."""
    if num_returns < 0:
        return refs[0]
    return refs or None


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def is_function(target: Any) -> bool:
    """Functions written in Python, as in Ray: a builtin or a partial says too little about itself."""
    return isinstance(target, FunctionType)


def exported(target: Any, name: str, session: Session) -> ExportedFunction:
    """Pickle a function or class for `session`.

    Raises:
        TypeError: something it uses cannot be pickled.
        ValueError: it weighs more than 100 MiB.
    """
    from redray.functions import ExportedFunction
    from redray.ids import FunctionID

    if session.kind == "local":
        return ExportedFunction(FunctionID.nil(), b"", name, target=target)
    import hashlib

    with collecting() as contains:
        pickled = _pickle(target, name)
    _check_size(len(pickled), name)
    id = FunctionID(hashlib.sha256(pickled).digest()[:16])
    return ExportedFunction(id, pickled, name, tuple(contains), target)


def _pickle(target: Any, name: str) -> bytes:
    from redray import cloudpickle

    pickled: bytes
    try:
        pickled = cloudpickle.dumps(target)
    except Exception as error:
        kind = "actor class" if isinstance(target, type) else "function"
        raise TypeError(f"Could not serialize the {kind} {name}: {_reason(target, error)}") from error
    return pickled


def _reason(target: Any, error: Exception) -> str:
    """Which captured value is at fault, if that can be found."""
    from redray.store import serialization

    try:
        serialization.serialize(target)
    except TypeError as found:
        return str(found)
    return f"{type(error).__name__}: {error}"


def _check_size(size: int, name: str) -> None:
    if size <= _WARN_BYTES:
        return
    what = (
        f"{size / 2**20:.0f} MiB with the values it captures. Put them into the object store with redray.put() and pass"
        " the refs as arguments."
    )
    if size > _MOST_BYTES:
        raise ValueError(f"{name} is too large, more than 100 MiB: {what}")
    import logging

    logging.getLogger("redray").warning("%s is very large: %s", name, what)
