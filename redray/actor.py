"""What `@remote` makes of a class: actors are made with `.remote()`, and called through handles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, NoReturn, TypeAlias

from redray import option_checks, refs, signatures
from redray import options as option_records
from redray.actor_shape import ActorShape
from redray.current import current, current_or_none
from redray.ids import ActorID
from redray.options import MethodOptions
from redray.remote_function import exported, several
from redray.signatures import Signature

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from redray.current import Session
    from redray.dag import ClassMethodNode, ClassNode
    from redray.options import ActorOptions

    T = TypeVar("T", default=Any)

    class _Handle(Any):  # type: ignore[misc]
        """What stands for a T (see ActorProxy), and has methods that only T knows."""
else:
    from typing import TypeVar

    T = TypeVar("T")

    class _Handle:
        __slots__ = ()


_MARK = "__redray_method__"  # where @method leaves its options, on the function
_ATTEMPTS = 10  # at finding or making a named actor, while others make and end it

# What every actor understands, whatever its class defines.
_OF_ALL_ACTORS = {
    "__ray_ready__": MethodOptions(signature=Signature(0, 0)),
    "__ray_terminate__": MethodOptions(signature=Signature(0, 0)),
    "__ray_call__": MethodOptions(signature=signatures.ANYTHING._replace(low=1, names=("fn",), required=1)),
}


class ActorClassInheritanceException(TypeError):
    """An actor class was used as a base class."""


# ---- what a caller has of an actor -----------------------------------------------------------------------------------
class ActorHandle(_Handle, Generic[T]):
    """Names an actor. `handle.method.remote(...)` calls it. Handles can be passed on, and keep the actor alive."""

    __slots__ = ("__weakref__", "_actor_id", "_hold", "_shape", "_token")

    def __init__(self, actor_id: ActorID, shape: ActorShape, is_counted: bool = False) -> None:
        """`is_counted`: the session has counted this handle when it made the actor."""
        self._hold = refs.handle_id(actor_id)
        self._actor_id = actor_id
        self._shape = shape
        session = current_or_none()
        self._token = session.token if session is not None else None
        if not is_counted:
            refs.keeper.count(self._hold)

    def __getattr__(self, name: str) -> ActorMethod:
        shape = self._shape
        options = shape.methods.get(name)
        if options is None and name in _OF_ALL_ACTORS:
            options = _OF_ALL_ACTORS[name]._replace(name=f"{shape.class_name}.{name}")
        if options is None:
            raise AttributeError(
                f"'ActorHandle' object has no attribute '{name}': {shape.class_name} has no such method."
            )
        return ActorMethod(self, name, options)

    @property
    def _ray_actor_id(self) -> ActorID:
        return self._actor_id

    def __del__(self, _append: Callable[[bytes], None] = refs.dropped.append) -> None:
        _append(self._hold)

    def __dir__(self) -> list[str]:
        own = (name for name in object.__dir__(self) if name.startswith("__"))
        return sorted({*own, *self._shape.methods, *_OF_ALL_ACTORS})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._actor_id == other._actor_id

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __repr__(self) -> str:
        return f"Actor({self._shape.class_name}, {self._actor_id.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        refs.note_pickled(self._hold)
        return _load_handle, (self._actor_id.binary(), self._shape.packed())

    def __copy__(self) -> ActorHandle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ActorHandle:
        return self

    def _is_of(self, session: Session) -> bool:
        """Whether it can be used in `session`: one from a session that was shut down names nothing any more."""
        return self._token is None or self._token is session.token


if TYPE_CHECKING:
    # `counter: ActorProxy[Counter] = Counter.remote()` has Counter's attributes: those made by @method are checked.
    ActorProxy: TypeAlias = Annotated[T, ActorHandle]
else:
    ActorProxy = ActorHandle


def _load_handle(actor_id: bytes, packed: bytes) -> ActorHandle:
    return ActorHandle(ActorID(actor_id), ActorShape.unpack(packed))


class ActorMethod:
    """A method of an actor, ready to be called with `.remote(...)`. It keeps the handle, and so the actor, alive."""

    __slots__ = ("_handle", "_name", "_options")

    def __init__(self, handle: ActorHandle, name: str, options: MethodOptions) -> None:
        self._handle = handle
        self._name = name
        self._options = options

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a call, and return at once what `RemoteFunction.remote` does. Calls of one caller run in their order.

        Raises:
            TypeError: the arguments do not fit the method, or one cannot be pickled.
            PendingCallsLimitExceeded: more calls are unfinished than the actor's `max_pending_calls` allows.
            ActorHandleNotFoundError: the handle comes from a session that was shut down.
        """
        options, handle = self._options, self._handle
        signature = options.signature
        if kwargs or not signature.low <= len(args) <= signature.high:
            signature.check(len(args), kwargs, f"{handle._shape.class_name}.{self._name}")
        session = current()
        if handle._token is not session.token:
            _check_session(handle, session)
        found = session.submit_actor_call(handle._actor_id, self._name, args, kwargs, options)
        return found[0] if options.num_returns == 1 else several(found, options.num_returns)

    def options(self, **given: Any) -> ActorMethod:
        """The same method with other options, for calls made through the result."""
        option_checks.check_method(given)
        return ActorMethod(self._handle, self._name, option_records.method_options(given, self._options))

    def _remote(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **given: Any) -> Any:
        """`.options(**given).remote(*args, **kwargs)` in one call, as Ray spells it."""
        return self.options(**given).remote(*args, **(kwargs or {}))

    def bind(self, /, *args: Any, **kwargs: Any) -> ClassMethodNode:
        """Write the call down for later: see `redray.dag`."""
        from redray.dag import ClassMethodNode

        return ClassMethodNode(self, args, kwargs)

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of handle.{self._name}(), write"
            f" handle.{self._name}.remote()."
        )

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle!r}.{self._name})"


def _check_session(handle: ActorHandle, session: Session) -> None:
    if not handle._is_of(session):
        from redray.exceptions import ActorHandleNotFoundError

        raise ActorHandleNotFoundError(
            f"{handle!r} belongs to a session that was shut down. A detached actor is found by redray.get_actor()."
        )


# ---- what makes actors -----------------------------------------------------------------------------------------------
class ActorClass(Generic[T]):
    """A class whose instances live in worker processes. Made by `@redray.remote`, never directly."""

    def __init__(self, cls: type[T], given: Mapping[str, Any]) -> None:
        """`given`: options that were checked already, by `options.check_actor`."""
        methods = signatures.methods_of(cls)
        options = option_records.actor_options(
            given, any(signatures.is_async(method) for method, _ in methods.values())
        )
        shape = ActorShape(cls.__name__, _method_options(cls.__name__, methods, options))
        self._set_up(cls, given, options, shape, signatures.of_class(cls))

    def _set_up(
        self, cls: type[T], given: Mapping[str, Any], options: ActorOptions, shape: ActorShape, signature: Signature
    ) -> None:
        self._cls = cls
        self._given = dict(given)
        self._options = options
        if options.runtime_env is not None:  # read and checked here, not where this is unpickled
            self._given["runtime_env"] = options.runtime_env
        self._shape = shape
        self._signature = signature
        self._token: object = None  # of the session that has the export
        self._export: Any = None
        self._origin: ActorClass[T] = self
        self.__doc__, self.__module__ = cls.__doc__, cls.__module__
        self.__name__, self.__qualname__ = cls.__name__, cls.__qualname__

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Make an actor, and return its handle at once. Calls of its methods raise what its `__init__` raised.

        Raises:
            TypeError: the arguments do not fit `__init__`, or one cannot be pickled.
            ActorAlreadyExistsError: the name is taken in the namespace, and `get_if_exists` was not asked for.
        """
        self._signature.check(len(args), kwargs, self._cls.__name__)
        session = current()
        options = self._options
        if not options.name:
            return self._create(session, args, kwargs, options)
        options = options._replace(namespace=options.namespace or session.namespace)
        if not options.get_if_exists:
            return self._create(session, args, kwargs, options)
        return self._find_or_create(session, args, kwargs, options)

    def options(self, **given: Any) -> ActorClass[T]:
        """The same class with other options: `A.options(name="a").remote()`. `A` itself stays as it is.

        Raises:
            TypeError: an option has the wrong type.
            ValueError: an option is unknown, out of range, or belongs into the decorator.
        """
        option_checks.check_actor(given, in_options=True)
        other = ActorClass(self._cls, {**self._given, **given})
        other._origin = self._origin
        return other

    def _remote(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **given: Any
    ) -> ActorHandle[T]:
        """`.options(**given).remote(*args, **kwargs)` in one call, as Ray spells it."""
        return self.options(**given).remote(*args, **(kwargs or {}))

    def bind(self, /, *args: Any, **kwargs: Any) -> ClassNode:
        """Write the creation down for later: see `redray.dag`."""
        from redray.dag import ClassNode

        return ClassNode(self, args, kwargs)

    def _create(
        self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> ActorHandle[T]:
        origin = self._origin
        if origin._token is not session.token:
            origin._export = exported(self._cls, self._cls.__name__, session)
            origin._token = session.token
        actor_id = session.create_actor(origin._export, args, kwargs, options, self._shape.methods)
        return ActorHandle(actor_id, self._shape, is_counted=True)

    def _find_or_create(
        self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> ActorHandle[T]:
        from redray.exceptions import ActorAlreadyExistsError

        for attempt in range(_ATTEMPTS):
            found = session.lookup_actor(options.name, options.namespace or "")
            if found is not None:
                return ActorHandle(found.actor_id, ActorShape(found.class_name, found.methods))
            try:
                return self._create(session, args, kwargs, options)
            except ActorAlreadyExistsError:  # somebody was faster: theirs is the actor, unless it has ended already
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        name = self._cls.__name__
        raise TypeError(f"Actors cannot be instantiated directly. Instead of {name}(), write {name}.remote().")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        name = self._cls.__name__
        raise ActorClassInheritanceException(
            f"Cannot inherit from the actor class '{name}'. Inherit from the plain class, and decorate what you derive."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also keeps copy and pickle from asking an instance that is not set up yet
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._cls, name)

    def __reduce__(self) -> tuple[Any, ...]:
        # A class whose methods name it is unpickled around this, and is still empty when this is made: what is known of
        # it travels along.
        return _load_class, (self._cls, self._given, self._options, self._shape.packed(), self._signature)

    def __repr__(self) -> str:
        return f"ActorClass({self._cls.__name__})"


def _load_class(
    cls: type[T], given: Mapping[str, Any], options: ActorOptions, packed: bytes, signature: Signature
) -> ActorClass[T]:
    loaded = ActorClass.__new__(ActorClass)
    loaded._set_up(cls, given, options, ActorShape.unpack(packed), signature)
    return loaded


def _method_options(
    class_name: str, methods: Mapping[str, tuple[Callable[..., Any], Signature]], actor: ActorOptions
) -> dict[str, MethodOptions]:
    found = {}
    for name, (function, signature) in methods.items():
        plain = option_records.plain_method(signatures.is_generator(function), signature, actor, f"{class_name}.{name}")
        found[name] = option_records.method_options(getattr(function, _MARK, {}), plain)
        group = found[name].concurrency_group
        if group and group not in actor.concurrency_groups:
            raise ValueError(
                f"Method '{name}' is in the concurrency group '{group}', but the class has only"
                f" {sorted(actor.concurrency_groups)}."
            )
    return found


def method(*functions: Any, **given: Any) -> Any:
    """Set options for a method of an actor: `@redray.method(num_returns=2)`. Bare `@redray.method` changes nothing.

    Args:
        num_returns: how many refs a call gives, as for a task.
        max_task_retries, retry_exceptions: how often and after what a call is repeated.
        concurrency_group: the group, of those the class declares, in whose limit the method runs.
    """
    if functions and (given or len(functions) > 1 or not _is_method(functions[0])):
        raise AssertionError(
            "The @redray.method decorator is applied either bare or with keyword arguments out of"
            f" {option_checks.METHOD_NAMES}, for example '@redray.method(num_returns=2)'."
        )
    unknown = given.keys() - set(option_checks.METHOD_NAMES)
    if unknown:
        raise AssertionError(
            f"Unexpected keyword argument to @redray.method: {sorted(unknown)}. It takes {option_checks.METHOD_NAMES}."
        )
    option_checks.check_method(given)

    def decorate(function: Any) -> Any:
        if not _is_method(function):
            raise TypeError(f"The @redray.method decorator is for methods, not for {function!r}.")
        setattr(getattr(function, "__func__", function), _MARK, given)
        return function

    return decorate(functions[0]) if functions else decorate


def _is_method(target: Any) -> bool:
    return callable(target) or isinstance(target, (staticmethod, classmethod))


def exit_actor() -> NoReturn:
    """End the actor that runs this, on purpose: it is not restarted, the caller sees RayActorError, queued calls fail.

    Other calls that run in threads have 30 s to end; those of an async actor are given up. In a thread that a method
    started, it ends the actor after the call that runs.

    Raises:
        TypeError: outside an actor.
    """
    from redray.exit import ActorExitRequested, ThisProcess

    session = current_or_none()
    context = session.task_context() if session is not None else None
    if context is None and ThisProcess.hosts_actor:  # a thread that a method started
        ThisProcess.must_end = True
        raise SystemExit(0)
    if context is None or not context.actor:
        raise TypeError("exit_actor() was called outside an actor: only a method of an actor can end it.")
    context.exits = True
    raise ActorExitRequested()
