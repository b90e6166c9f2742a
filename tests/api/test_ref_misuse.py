"""What happens to those who take a ref for its value, and to other everyday slips."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import redray as ray

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def echo(value: Any = None) -> Any:
    return value


@ray.remote
class Plain:
    def answer(self) -> int:
        return 42


def test_a_ref_is_not_its_value() -> None:
    ref: Any = echo.remote([1, 2])
    with pytest.raises(TypeError, match="not iterable"):
        list(ref)
    with pytest.raises(TypeError):
        _first, _second = ref
    with pytest.raises(TypeError, match=r"len\(\)"):
        len(ref)
    with pytest.raises(TypeError, match="redray.get"):
        _ = ref + ref
    with pytest.raises(TypeError):
        _ = ref + 1
    with pytest.raises(TypeError):
        _ = 2 * ref
    with pytest.raises(TypeError):
        _ = 1 in ref
    assert ref and bool(ray.ObjectRef.nil())  # a name is there, whatever it names
    assert ray.get(ref) == [1, 2]


def test_messages_name_the_slip() -> None:
    actor = Plain.remote()
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'"):
        actor.nothing.remote()
    with pytest.raises(TypeError, match="cannot be instantiated directly"):
        Plain()  # type: ignore[operator]
    with pytest.raises(ValueError, match="only supported for actors"):
        ray.kill(echo)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only supported for object refs"):
        ray.cancel(actor)
    with pytest.raises(ValueError, match="Failed to look up actor with name 'nobody'"):
        ray.get_actor("nobody")
    with pytest.raises(ValueError, match="get_actor"):
        ray.get_actor(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Could not serialize the put value.*lock"):
        ray.put(threading.Lock())


def test_remote_of_what_cannot_be_called() -> None:
    for target in (None, 1, "f"):
        with pytest.raises(AssertionError, match=r"@redray\.remote"):
            ray.remote(target)
    with pytest.raises(TypeError, match="function or a class"):
        ray.remote(num_cpus=1)(1)
    with pytest.raises(TypeError, match="function or a class"):
        ray.remote(len)


def test_positional_only_parameters() -> None:
    @ray.remote
    def pair(first: Any, /, second: Any) -> Any:
        return first, second

    with pytest.raises(TypeError, match="'first' parameter is positional only"):
        pair.remote(first=1, second=2)
    assert ray.get(pair.remote(1, second=2)) == (1, 2)


def test_a_cancelled_error_names_its_task(tmp_path: Any) -> None:
    @ray.remote
    def block(path: Any) -> None:
        import time

        (path / "began").touch()
        time.sleep(60)

    ref = block.remote(tmp_path)
    while not (tmp_path / "began").exists():
        ray.wait([ref], timeout=0.05)
    late = echo.remote(ref)
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
        ray.get(ref)
    assert caught.value.task_id == ref.task_id().hex()
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(late)


def test_arguments_may_have_any_name() -> None:
    @ray.remote
    def keywords(**kwargs: Any) -> Any:
        return kwargs

    @ray.remote
    class Holder:
        def __init__(holder, **kwargs: Any) -> None:
            holder.kwargs = kwargs

        def both(holder, **kwargs: Any) -> Any:
            return holder.kwargs, kwargs

    names = {"self": 1, "args": 2, "kwargs": 3, "num_cpus": 4, "options": 5, "name": 6}
    assert ray.get(keywords.remote(**names)) == names
    assert ray.get(keywords.bind(**names).execute()) == names
    assert ray.get(Holder.remote(**names).both.remote(**names)) == (names, names)
