"""What the execution of tasks needs of its process' session. The session implements it; tests bring a small fake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from redray.messages import ActorExit, Cancel, Done, Exit, HandedBack, JobInfo, Returned, Run, Yielded
from redray.refs import ObjectRef
from redray.task_context import TaskContext

if TYPE_CHECKING:
    from redray.worker.producer import Producer

Work = Run | Exit | Cancel | JobInfo
Outgoing = Done | Yielded | HandedBack | ActorExit


class Host(Protocol):
    """Every method but `next_run` may be called from any thread."""

    def next_run(self, wait: bool) -> Work | None:
        """What the node sent, in order. With `wait` false only what is already in this process, without a system call,
        else None; with `wait` true it sends what was posted and blocks until something comes. A lost node is an
        `Exit`."""

    def post(self, message: Outgoing) -> None:
        """Put a frame behind what was posted before. It goes out with `flush`, or ahead of any other frame of this
        process: a call or `Blocked` must never overtake the results before it. Raises nothing: a lost node shows up in
        `next_run`."""

    def flush(self) -> None:
        """Send what was posted. Costs next to nothing when there is nothing."""

    def load_function(self, function: str, pickled: bytes | None) -> Any:
        """The function or class of this id, unpickled once per process; `pickled` None means that this process has seen
        it or must ask. Whatever unpickling raises passes through."""

    def load_values(self, ids: list[str], inline: dict[str, bytes]) -> list[tuple[bool, Any]]:
        """(is it an error, value or exception) of each object id. May block until the bytes are on this node."""

    def store_return(self, task: str, index: int, value: Any) -> Returned:
        """Serialize a return value: inline if small, else written to shared memory. Raises what serializing or
        allocating raises."""

    def fetch_package(self, package: str) -> Iterator[bytes]:
        """The parts of an uploaded package, in order. Raises LookupError, with a sentence, if it is not there."""

    def last_submitted(self) -> int:
        """The number of the last task that this process has submitted. Takes no lock: a signal handler asks."""

    def put(self, value: Any) -> ObjectRef[Any]:
        """Make an object of its own of a value. Raises what serializing or allocating raises."""

    def put_packed(self, packed: bytes) -> ObjectRef[Any]:
        """The same for a value or an error that is packed already."""

    def begin_producing(self, producer: Producer) -> None:
        """From now on the producer hears what the node says of its stream."""

    def end_producing(self, producer: Producer) -> None: ...
    def wait_for_producer(self, producer: Producer) -> None:
        """Block until its generator may go on, in any thread but that of an event loop."""

    def set_context(self, context: TaskContext | None) -> None:
        """`context` runs now, in this thread or asyncio task (a ContextVar knows both)."""
