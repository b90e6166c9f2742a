"""What a type checker sees of `.remote`: nothing here runs.

A parameter of a remote function takes a value or the ref of one, which no type of Python's expresses. So a function is
looked at twice: as it is (`P`: names, defaults, keywords), and by the types of its first parameters (`S`, a tuple).
`Call` accepts what fits either: values as `P` says, or values and refs by position. Refs given by keyword, and the
class decorator, are for `redray.mypy_plugin`.
"""

# Of two that fit, the first is meant: a class is callable, a generator is an iterator.
# mypy: disable-error-code="overload-overlap, overload-cannot-match"

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from redray.actor import ActorClass, ActorHandle
from redray.generators import ObjectRefGenerator
from redray.refs import ObjectRef
from redray.remote_function import RemoteFunction

P = ParamSpec("P")
Out = TypeVar("Out")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
T = TypeVar("T")
Y = TypeVar("Y")

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
A_in = TypeVar("A_in", contravariant=True)
B_in = TypeVar("B_in", contravariant=True)
C_in = TypeVar("C_in", contravariant=True)
D_in = TypeVar("D_in", contravariant=True)
E_in = TypeVar("E_in", contravariant=True)
F_in = TypeVar("F_in", contravariant=True)

Given: TypeAlias = T | ObjectRef[T]

class Call(Generic[P, Out, S]):
    """`.remote` of something with the parameters P, of which S are the first; it gives Out.

    Where the first argument is a ref, what is left out or given by name is not looked at.
    """

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out: ...
    @overload
    def __call__(self: Call[P, Out, tuple[A]], a: Given[A], /) -> Out: ...
    @overload
    def __call__(self: Call[P, Out, tuple[A]], a: ObjectRef[A], /, **kwargs: Any) -> Out: ...
    @overload
    def __call__(self: Call[P, Out, tuple[A, B]], a: Given[A], b: Given[B], /) -> Out: ...
    @overload
    def __call__(self: Call[P, Out, tuple[A, B]], a: ObjectRef[A], b: Given[B] = ..., /, **kwargs: Any) -> Out: ...
    @overload
    def __call__(self: Call[P, Out, tuple[A, B, C]], a: Given[A], b: Given[B], c: Given[C], /) -> Out: ...
    @overload
    def __call__(
        self: Call[P, Out, tuple[A, B, C]], a: ObjectRef[A], b: Given[B] = ..., c: Given[C] = ..., /, **kwargs: Any
    ) -> Out: ...
    @overload
    def __call__(
        self: Call[P, Out, tuple[A, B, C, D]], a: Given[A], b: Given[B], c: Given[C], d: Given[D], /
    ) -> Out: ...
    @overload
    def __call__(
        self: Call[P, Out, tuple[A, B, C, D]],
        a: ObjectRef[A],
        b: Given[B] = ...,
        c: Given[C] = ...,
        d: Given[D] = ...,
        /,
        **kwargs: Any,
    ) -> Out: ...
    @overload
    def __call__(
        self: Call[P, Out, tuple[A, B, C, D, E]], a: Given[A], b: Given[B], c: Given[C], d: Given[D], e: Given[E], /
    ) -> Out: ...
    @overload
    def __call__(
        self: Call[P, Out, tuple[A, B, C, D, E]],
        a: ObjectRef[A],
        b: Given[B] = ...,
        c: Given[C] = ...,
        d: Given[D] = ...,
        e: Given[E] = ...,
        /,
        **kwargs: Any,
    ) -> Out: ...
    @overload
    def __call__(
        self: Call[P, Out, tuple[A, B, C, D, E, F]],
        a: Given[A],
        b: Given[B],
        c: Given[C],
        d: Given[D],
        e: Given[E],
        f: Given[F],
        /,
        *more: Any,
    ) -> Out: ...
    @overload
    def __call__(
        self: Call[P, Out, tuple[A, B, C, D, E, F]],
        a: ObjectRef[A],
        b: Given[B] = ...,
        c: Given[C] = ...,
        d: Given[D] = ...,
        e: Given[E] = ...,
        f: Given[F] = ...,
        /,
        *more: Any,
        **kwargs: Any,
    ) -> Out: ...

class Task(RemoteFunction, Generic[P, Out, S]):
    """What `@remote` makes of a function."""

    @property
    def remote(self) -> Call[P, Out, S]: ...
    __call__: None  # type: ignore[assignment]

    @overload
    def options(self, *, num_returns: int | str | None, **given: Any) -> Task[P, Any, S]: ...
    @overload
    def options(self, **given: Any) -> Task[P, Out, S]: ...

class Actor(ActorClass[T], Generic[T, P, S]):
    """What `@remote` makes of a class."""

    @property
    def remote(self) -> Call[P, ActorHandle[T], S]: ...
    __call__: None  # type: ignore[assignment]

    def options(self, **given: Any) -> Actor[T, P, S]: ...

class ActorCall(Generic[P, T, Out, S]):
    """What `@method` makes of a method: called plainly inside of the actor, through `.remote` outside."""

    @property
    def remote(self) -> Call[P, Out, S]: ...
    @overload
    def options(self, *, num_returns: int | str | None, **given: Any) -> ActorCall[P, T, Any, S]: ...
    @overload
    def options(self, **given: Any) -> ActorCall[P, T, Out, S]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T: ...

class Function1(Protocol[P, R, A_in]):
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, a: A_in, /) -> R: ...

class Function2(Protocol[P, R, A_in, B_in]):
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, a: A_in, b: B_in, /) -> R: ...

class Function3(Protocol[P, R, A_in, B_in, C_in]):
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, a: A_in, b: B_in, c: C_in, /) -> R: ...

class Function4(Protocol[P, R, A_in, B_in, C_in, D_in]):
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, a: A_in, b: B_in, c: C_in, d: D_in, /) -> R: ...

class Function5(Protocol[P, R, A_in, B_in, C_in, D_in, E_in]):
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, a: A_in, b: B_in, c: C_in, d: D_in, e: E_in, /) -> R: ...

class Function6(Protocol[P, R, A_in, B_in, C_in, D_in, E_in, F_in]):
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, a: A_in, b: B_in, c: C_in, d: D_in, e: E_in, f: F_in, /) -> R: ...

class Class0(Protocol[P, R]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def mro(self) -> list[type]: ...  # what only classes have

class Class1(Function1[P, R, A_in], Protocol[P, R, A_in]):
    def mro(self) -> list[type]: ...

class Class2(Function2[P, R, A_in, B_in], Protocol[P, R, A_in, B_in]):
    def mro(self) -> list[type]: ...

class Class3(Function3[P, R, A_in, B_in, C_in], Protocol[P, R, A_in, B_in, C_in]):
    def mro(self) -> list[type]: ...

class Class4(Function4[P, R, A_in, B_in, C_in, D_in], Protocol[P, R, A_in, B_in, C_in, D_in]):
    def mro(self) -> list[type]: ...

class Class5(Function5[P, R, A_in, B_in, C_in, D_in, E_in], Protocol[P, R, A_in, B_in, C_in, D_in, E_in]):
    def mro(self) -> list[type]: ...

class Class6(Function6[P, R, A_in, B_in, C_in, D_in, E_in, F_in], Protocol[P, R, A_in, B_in, C_in, D_in, E_in, F_in]):
    def mro(self) -> list[type]: ...

remote: Decorator
method: MethodDecorator

class Decorator(Protocol):
    """`@remote`, and what `@remote(...)` gives if its options leave the number of returns alone."""

    @overload
    def __call__(self, target: Class6[P, T, A, B, C, D, E, F], /) -> Actor[T, P, tuple[A, B, C, D, E, F]]: ...
    @overload
    def __call__(self, target: Class5[P, T, A, B, C, D, E], /) -> Actor[T, P, tuple[A, B, C, D, E]]: ...
    @overload
    def __call__(self, target: Class4[P, T, A, B, C, D], /) -> Actor[T, P, tuple[A, B, C, D]]: ...
    @overload
    def __call__(self, target: Class3[P, T, A, B, C], /) -> Actor[T, P, tuple[A, B, C]]: ...
    @overload
    def __call__(self, target: Class2[P, T, A, B], /) -> Actor[T, P, tuple[A, B]]: ...
    @overload
    def __call__(self, target: Class1[P, T, A], /) -> Actor[T, P, tuple[A]]: ...
    @overload
    def __call__(self, target: Class0[P, T], /) -> Actor[T, P, tuple[()]]: ...
    @overload
    def __call__(
        self, target: Function6[P, Iterator[Y], A, B, C, D, E, F], /
    ) -> Task[P, ObjectRefGenerator[Y], tuple[A, B, C, D, E, F]]: ...
    @overload
    def __call__(
        self, target: Function5[P, Iterator[Y], A, B, C, D, E], /
    ) -> Task[P, ObjectRefGenerator[Y], tuple[A, B, C, D, E]]: ...
    @overload
    def __call__(
        self, target: Function4[P, Iterator[Y], A, B, C, D], /
    ) -> Task[P, ObjectRefGenerator[Y], tuple[A, B, C, D]]: ...
    @overload
    def __call__(
        self, target: Function3[P, Iterator[Y], A, B, C], /
    ) -> Task[P, ObjectRefGenerator[Y], tuple[A, B, C]]: ...
    @overload
    def __call__(self, target: Function2[P, Iterator[Y], A, B], /) -> Task[P, ObjectRefGenerator[Y], tuple[A, B]]: ...
    @overload
    def __call__(self, target: Function1[P, Iterator[Y], A], /) -> Task[P, ObjectRefGenerator[Y], tuple[A]]: ...
    @overload
    def __call__(self, target: Callable[P, Iterator[Y]], /) -> Task[P, ObjectRefGenerator[Y], tuple[()]]: ...
    @overload
    def __call__(
        self, target: Function6[P, T, A, B, C, D, E, F], /
    ) -> Task[P, ObjectRef[T], tuple[A, B, C, D, E, F]]: ...
    @overload
    def __call__(self, target: Function5[P, T, A, B, C, D, E], /) -> Task[P, ObjectRef[T], tuple[A, B, C, D, E]]: ...
    @overload
    def __call__(self, target: Function4[P, T, A, B, C, D], /) -> Task[P, ObjectRef[T], tuple[A, B, C, D]]: ...
    @overload
    def __call__(self, target: Function3[P, T, A, B, C], /) -> Task[P, ObjectRef[T], tuple[A, B, C]]: ...
    @overload
    def __call__(self, target: Function2[P, T, A, B], /) -> Task[P, ObjectRef[T], tuple[A, B]]: ...
    @overload
    def __call__(self, target: Function1[P, T, A], /) -> Task[P, ObjectRef[T], tuple[A]]: ...
    @overload
    def __call__(self, target: Callable[[], T], /) -> Task[[], ObjectRef[T], tuple[()]]: ...
    @overload
    def __call__(self, target: Callable[P, T], /) -> Task[P, ObjectRef[T], Any]: ...
    @overload
    def __call__(self, *, num_returns: Literal["streaming"], **options: Any) -> Decorator: ...
    @overload
    def __call__(self, *, num_returns: int | str | None, **options: Any) -> SeveralReturns: ...
    @overload
    def __call__(self, **options: Any) -> Decorator: ...

class SeveralReturns(Protocol):
    """`@remote(num_returns=n)`: a call gives a list of refs, one, or None, as the number says."""

    @overload
    def __call__(self, target: Class0[P, T], /) -> Actor[T, P, Any]: ...
    @overload
    def __call__(self, target: Function6[P, Any, A, B, C, D, E, F], /) -> Task[P, Any, tuple[A, B, C, D, E, F]]: ...
    @overload
    def __call__(self, target: Function5[P, Any, A, B, C, D, E], /) -> Task[P, Any, tuple[A, B, C, D, E]]: ...
    @overload
    def __call__(self, target: Function4[P, Any, A, B, C, D], /) -> Task[P, Any, tuple[A, B, C, D]]: ...
    @overload
    def __call__(self, target: Function3[P, Any, A, B, C], /) -> Task[P, Any, tuple[A, B, C]]: ...
    @overload
    def __call__(self, target: Function2[P, Any, A, B], /) -> Task[P, Any, tuple[A, B]]: ...
    @overload
    def __call__(self, target: Function1[P, Any, A], /) -> Task[P, Any, tuple[A]]: ...
    @overload
    def __call__(self, target: Callable[[], Any], /) -> Task[[], Any, tuple[()]]: ...
    @overload
    def __call__(self, target: Callable[P, Any], /) -> Task[P, Any, Any]: ...

class Method1(Protocol[P, R, A_in]):
    @overload
    def __call__(self, this: Any, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, this: Any, a: A_in, /) -> R: ...

class Method2(Protocol[P, R, A_in, B_in]):
    @overload
    def __call__(self, this: Any, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, this: Any, a: A_in, b: B_in, /) -> R: ...

class Method3(Protocol[P, R, A_in, B_in, C_in]):
    @overload
    def __call__(self, this: Any, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, this: Any, a: A_in, b: B_in, c: C_in, /) -> R: ...

class Method4(Protocol[P, R, A_in, B_in, C_in, D_in]):
    @overload
    def __call__(self, this: Any, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, this: Any, a: A_in, b: B_in, c: C_in, d: D_in, /) -> R: ...

class MethodDecorator(Protocol):
    """`@method`, and what `@method(...)` gives if its options leave the number of returns alone."""

    @overload
    def __call__(
        self, method: Callable[Concatenate[Any, P], AsyncIterator[Y]], /
    ) -> ActorCall[P, AsyncIterator[Y], ObjectRefGenerator[Y], Any]: ...
    @overload
    def __call__(
        self, method: Callable[Concatenate[Any, P], Iterator[Y]], /
    ) -> ActorCall[P, Iterator[Y], ObjectRefGenerator[Y], Any]: ...
    @overload
    def __call__(
        self, method: Method4[P, Coroutine[Any, Any, T], A, B, C, D], /
    ) -> ActorCall[P, Coroutine[Any, Any, T], ObjectRef[T], tuple[A, B, C, D]]: ...
    @overload
    def __call__(
        self, method: Method3[P, Coroutine[Any, Any, T], A, B, C], /
    ) -> ActorCall[P, Coroutine[Any, Any, T], ObjectRef[T], tuple[A, B, C]]: ...
    @overload
    def __call__(
        self, method: Method2[P, Coroutine[Any, Any, T], A, B], /
    ) -> ActorCall[P, Coroutine[Any, Any, T], ObjectRef[T], tuple[A, B]]: ...
    @overload
    def __call__(
        self, method: Method1[P, Coroutine[Any, Any, T], A], /
    ) -> ActorCall[P, Coroutine[Any, Any, T], ObjectRef[T], tuple[A]]: ...
    @overload
    def __call__(
        self, method: Callable[[Any], Coroutine[Any, Any, T]], /
    ) -> ActorCall[[], Coroutine[Any, Any, T], ObjectRef[T], tuple[()]]: ...
    @overload
    def __call__(
        self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> ActorCall[P, Coroutine[Any, Any, T], ObjectRef[T], Any]: ...
    @overload
    def __call__(self, method: Method4[P, T, A, B, C, D], /) -> ActorCall[P, T, ObjectRef[T], tuple[A, B, C, D]]: ...
    @overload
    def __call__(self, method: Method3[P, T, A, B, C], /) -> ActorCall[P, T, ObjectRef[T], tuple[A, B, C]]: ...
    @overload
    def __call__(self, method: Method2[P, T, A, B], /) -> ActorCall[P, T, ObjectRef[T], tuple[A, B]]: ...
    @overload
    def __call__(self, method: Method1[P, T, A], /) -> ActorCall[P, T, ObjectRef[T], tuple[A]]: ...
    @overload
    def __call__(self, method: Callable[[Any], T], /) -> ActorCall[[], T, ObjectRef[T], tuple[()]]: ...
    @overload
    def __call__(self, method: Callable[Concatenate[Any, P], T], /) -> ActorCall[P, T, ObjectRef[T], Any]: ...
    @overload
    def __call__(self, *, num_returns: Literal["streaming"], **options: Any) -> MethodDecorator: ...
    @overload
    def __call__(self, *, num_returns: int | str | None, **options: Any) -> SeveralReturnsOfMethod: ...
    @overload
    def __call__(self, **options: Any) -> MethodDecorator: ...

class SeveralReturnsOfMethod(Protocol):
    """`@method(num_returns=n)`."""

    def __call__(self, method: Callable[Concatenate[Any, P], T], /) -> ActorCall[P, T, Any, Any]: ...

class Options(Protocol[R]):
    """`.options` of something: the same with other options."""

    def __call__(self, **given: Any) -> R: ...
