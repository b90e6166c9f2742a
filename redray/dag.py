"""Calls that are written down first and made later: `f.bind(x)` instead of `f.remote(x)`, under the names of `ray.dag`.

A node is a call with its arguments, which may hold other nodes. `execute()` makes every call of the graph once: what is
used in two places is computed once. Values travel as refs, so the driver waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class DAGNode:
    """A call that has not been made. `execute(*args, **kwargs)` gives what `.remote()` would: a ref, or a handle.

    The arguments of `execute` are what an `InputNode` of the graph stands for.
    """

    def __init__(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self._args = args
        self._kwargs = dict(kwargs or {})

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return _Execution(args, kwargs).result(self)

    def get_args(self) -> tuple[Any, ...]:
        return self._args

    def get_kwargs(self) -> dict[str, Any]:
        return dict(self._kwargs)

    def _make(self, execution: _Execution) -> Any:
        """Make the call. What it needs is asked of `execution`."""
        raise NotImplementedError

    def remote(self, *_args: Any, **_kwargs: Any) -> Any:
        raise AttributeError(f"A {type(self).__name__} is bound already: call its execute().")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._args))})"

    def __reduce__(self) -> Any:
        return _load, (type(self), self.__dict__)


class _Execution:
    """One walk through a graph: what each node came to."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        self._results: dict[int, Any] = {}

    def result(self, node: DAGNode) -> Any:
        if id(node) not in self._results:
            self._results[id(node)] = node._make(self)
        return self._results[id(node)]

    def call(self, submit: Callable[..., Any], node: DAGNode) -> Any:
        args = [self.resolve(argument) for argument in node._args]
        kwargs = {name: self.resolve(argument) for name, argument in node._kwargs.items()}
        return submit(*args, **kwargs)

    def resolve(self, value: Any) -> Any:
        """`value` with results in the place of nodes, also inside lists, tuples and dicts."""
        if isinstance(value, DAGNode):
            return self.result(value)
        if type(value) in (list, tuple):
            return type(value)(self.resolve(item) for item in value)
        if type(value) is dict:
            return {key: self.resolve(item) for key, item in value.items()}
        return value


class FunctionNode(DAGNode):
    """`f.bind(...)`"""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._function = function

    def _make(self, execution: _Execution) -> Any:
        return execution.call(self._function.remote, self)


class ClassNode(DAGNode):
    """`Actor.bind(...)`: the actor is made when the graph is executed. Its methods can be bound: `node.method.bind(x)`.
    They run in the order in which they were bound, whichever of them the graph is executed for."""

    def __init__(self, cls: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._cls = cls
        self._last: ClassMethodNode | None = None

    def _make(self, execution: _Execution) -> Any:
        return execution.call(self._cls.remote, self)

    def __getattr__(self, name: str) -> _Unbound:
        if name.startswith("_") or not callable(getattr(self._cls, name, None)):
            raise AttributeError(f"{self._cls!r} has no method '{name}'.")
        return _Unbound(self, name, {})


class _Unbound:
    """A method of an actor that is not there yet."""

    def __init__(self, node: ClassNode, name: str, options: dict[str, Any]) -> None:
        self._node, self._name, self._options = node, name, options

    def options(self, **given: Any) -> _Unbound:
        return _Unbound(self._node, self._name, {**self._options, **given})

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        node = ClassMethodNode(self, args, kwargs, self._node._last)
        self._node._last = node
        return node

    def of(self, execution: _Execution) -> Any:
        """The method of the actor that this execution has made."""
        method = getattr(execution.result(self._node), self._name)
        return method.options(**self._options) if self._options else method


class ClassMethodNode(DAGNode):
    """`handle.method.bind(...)`, or of a `ClassNode`."""

    def __init__(
        self, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], before: ClassMethodNode | None = None
    ) -> None:
        super().__init__(args, kwargs)
        self._method, self._before = method, before

    def _make(self, execution: _Execution) -> Any:
        if self._before is not None:
            execution.result(self._before)
        method = self._method.of(execution) if isinstance(self._method, _Unbound) else self._method
        return execution.call(method.remote, self)


class InputNode(DAGNode):
    """Stands for what `execute` is given: `with InputNode() as given: graph = f.bind(given)`. With several arguments,
    `given[0]`, `given.name` and `given["name"]` stand for one each."""

    def __enter__(self) -> InputNode:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _make(self, execution: _Execution) -> Any:
        if len(execution.args) != 1 or execution.kwargs:
            raise ValueError(
                f"The graph takes one argument: execute() was given {len(execution.args)} and"
                f" {sorted(execution.kwargs)}. To choose among several, write given[0] or given.name."
            )
        return execution.args[0]

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        return InputAttributeNode(key)

    def __getattr__(self, name: str) -> InputAttributeNode:
        if name.startswith("_"):
            raise AttributeError(name)
        return InputAttributeNode(name)


class InputAttributeNode(DAGNode):
    """One of several arguments of `execute`, or, where there is only one, what it has under this key or name."""

    def __init__(self, key: int | str) -> None:
        super().__init__()
        self._key = key

    def _make(self, execution: _Execution) -> Any:
        if isinstance(self._key, str) and self._key in execution.kwargs:
            return execution.kwargs[self._key]
        if len(execution.args) == 1 and not execution.kwargs and (self._key != 0 or hasattr(execution.args[0], "get")):
            only = execution.args[0]
            if isinstance(self._key, str) and hasattr(only, self._key):
                return getattr(only, self._key)
            return only[self._key]
        if isinstance(self._key, int):
            return execution.args[self._key]
        raise ValueError(f"execute() was given no argument named '{self._key}'.")


class MultiOutputNode(DAGNode):
    """Several results of one graph: `MultiOutputNode([a, b]).execute()` is a list of two refs."""

    def __init__(self, args: list[DAGNode]) -> None:
        super().__init__(tuple(args))

    def _make(self, execution: _Execution) -> Any:
        return [execution.resolve(node) for node in self._args]


def _load(cls: type[DAGNode], state: dict[str, Any]) -> DAGNode:
    node = cls.__new__(cls)
    node.__dict__.update(state)
    return node
