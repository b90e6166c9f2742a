"""For users of mypy: `plugins = redray.mypy_plugin` in its settings. Nothing at run time imports this.

Without it, mypy knows tasks, `redray.remote(Class)` and methods made by `@redray.method`. With it, also what Python's
types cannot express: that the decorator `@redray.remote` changes a class, what every method of an actor takes and
gives, and that an argument given by keyword may be a ref.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mypy.errorcodes import ATTR_DEFINED
from mypy.maptype import map_instance_to_supertype
from mypy.nodes import Decorator, FuncDef, TypeInfo
from mypy.plugin import AttributeContext, ClassDefContext, Plugin
from mypy.plugins.common import add_attribute_to_class
from mypy.typeops import bind_self
from mypy.types import (
    AnyType,
    CallableType,
    Instance,
    Parameters,
    ProperType,
    Type,
    TypeOfAny,
    UnionType,
    get_proper_type,
)

_REMOTE = {"redray.call_types.remote", "redray.api.remote", "redray.remote"}
_OF_CLASS = {"remote", "options", "_remote"}
_ANY_ACTOR = "redray.actor.ActorHandle."
_CALLS = {f"redray.call_types.{name}.remote" for name in ("Task", "Actor", "ActorCall")}
_MARK = "redray_actor"
_GENERATORS = ("typing.AsyncIterator", "typing.Iterator")


class RedrayPlugin(Plugin):
    def get_class_decorator_hook(self, fullname: str) -> Callable[[ClassDefContext], None] | None:
        return _mark if fullname in _REMOTE else None

    def get_class_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        return _class_attribute(fullname) if fullname.rpartition(".")[2] in _OF_CLASS else None

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        if fullname in _CALLS:
            return _call
        if fullname.startswith(_ANY_ACTOR):
            return _method(fullname.removeprefix(_ANY_ACTOR))
        return None


def plugin(_version: str) -> type[Plugin]:
    return RedrayPlugin


def _info(context: AttributeContext, fullname: str) -> TypeInfo:
    """Of a module that is loaded, though no name in its package may lead there."""
    module, _, name = fullname.rpartition(".")
    modules: Any = context.api.modules  # type: ignore[attr-defined]
    info = modules[module].names[name].node
    assert isinstance(info, TypeInfo)
    return info


def _instance(context: AttributeContext, fullname: str, arguments: list[Type]) -> Instance:
    return Instance(_info(context, fullname), arguments)


# ---- `.remote` -------------------------------------------------------------------------------------------------------
def _call(context: AttributeContext) -> Type:
    """A Call[P, Out, S] as the plain function it stands for, every parameter a value or the ref of one."""
    call = get_proper_type(context.default_attr_type)
    if isinstance(call, Instance) and len(call.args) == 3:
        parameters = get_proper_type(call.args[0])
        if isinstance(parameters, Parameters) and not parameters.is_ellipsis_args:
            return _remote(context, parameters, call.args[1])
    return call


def _remote(context: AttributeContext, parameters: Parameters | CallableType, gives: Type) -> ProperType:
    def given(kind: Type) -> Type:
        if isinstance(get_proper_type(kind), AnyType):
            return kind
        return UnionType.make_union([kind, _instance(context, "redray.refs.ObjectRef", [kind])])

    return CallableType(
        [given(kind) for kind in parameters.arg_types],
        parameters.arg_kinds,
        parameters.arg_names,
        gives,
        context.api.named_generic_type("builtins.function", []),
        variables=parameters.variables,
        name="remote",
    )


# ---- classes ---------------------------------------------------------------------------------------------------------
def _mark(context: ClassDefContext) -> None:
    """mypy leaves a class what it was, whatever its decorator returns: so it gets what an ActorClass has."""
    context.cls.info.metadata[_MARK] = {}
    for name in _OF_CLASS:
        add_attribute_to_class(context.api, context.cls, name, AnyType(TypeOfAny.special_form), is_classvar=True)


def _class_attribute(fullname: str) -> Callable[[AttributeContext], Type]:
    name = fullname.rpartition(".")[2]

    def find(context: AttributeContext) -> Type:
        made = context.type
        if not isinstance(made, CallableType) or not made.is_type_obj() or _MARK not in made.type_object().metadata:
            return context.default_attr_type
        instance = get_proper_type(made.ret_type)
        if name == "remote":
            return _remote(context, made, _instance(context, "redray.actor.ActorHandle", [instance]))
        if name == "options":
            any_type = AnyType(TypeOfAny.special_form)
            actor = _instance(context, "redray.call_types.Actor", [instance, _parameters(made), any_type])
            options = _instance(context, "redray.call_types.Options", [actor])
            return options
        return context.default_attr_type

    return find


def _parameters(function: CallableType) -> Parameters:
    return Parameters(function.arg_types, function.arg_kinds, function.arg_names, variables=function.variables)


# ---- methods ---------------------------------------------------------------------------------------------------------
def _method(name: str) -> Callable[[AttributeContext], Type]:
    def find(context: AttributeContext) -> Type:
        handle = context.type
        actor = get_proper_type(handle.args[0]) if isinstance(handle, Instance) and handle.args else None
        if not isinstance(actor, Instance) or name.startswith("__ray_"):
            return context.default_attr_type
        found = actor.type.get(name)
        if found is None and not actor.type.fallback_to_any:
            context.api.fail(f'"{actor.type.name}" actors have no method "{name}"', context.context, code=ATTR_DEFINED)
            return AnyType(TypeOfAny.from_error)
        if found is not None and isinstance(found.node, Decorator):
            return found.node.var.type or context.default_attr_type
        if found is None or not isinstance(found.node, FuncDef):
            return context.default_attr_type
        function = get_proper_type(found.node.type)
        if not isinstance(function, CallableType):  # without annotations
            return context.default_attr_type
        return _actor_call(context, bind_self(function, actor))

    return find


def _actor_call(context: AttributeContext, method: CallableType) -> Type:
    result = get_proper_type(method.ret_type)
    arguments = [_parameters(method), result, _given_out(context, result), AnyType(TypeOfAny.special_form)]
    return _instance(context, "redray.call_types.ActorCall", arguments)


def _given_out(context: AttributeContext, result: ProperType) -> Type:
    """What `.remote()` gives for a method with this result."""
    if isinstance(result, Instance):
        if result.type.has_base("typing.Coroutine"):
            awaited = map_instance_to_supertype(result, _info(context, "typing.Coroutine"))
            return _instance(context, "redray.refs.ObjectRef", [awaited.args[2]])
        for kind in _GENERATORS:
            if result.type.has_base(kind):
                items = map_instance_to_supertype(result, _info(context, kind))
                return _instance(context, "redray.generators.ObjectRefGenerator", [items.args[0]])
    return _instance(context, "redray.refs.ObjectRef", [result])
