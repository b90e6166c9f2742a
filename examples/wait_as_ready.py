"""Results handled in the order in which they become ready.

Four tasks take 1.2, 0.4, 1.6 and 0.8 s on four CPUs. `get` in the order of submission would deal with the first one
after 1.2 s. Prints, as it happens, one line per result, `after X s: the task of Y s`, with Y = 0.4, 0.8, 1.2, 1.6 in
this order and X a little above Y. Then `nothing within 0.1 s: 0 ready, 1 pending`, from a wait that timed out.
"""

from __future__ import annotations

import time

import redray


@redray.remote
def work(seconds: float) -> float:
    """Take that long; return how long it was."""
    time.sleep(seconds)
    return seconds


def main() -> None:
    """Start the tasks and handle each result once it is there."""
    redray.init(num_cpus=4)
    began = time.perf_counter()
    pending = [work.remote(seconds) for seconds in (1.2, 0.4, 1.6, 0.8)]
    while pending:
        ready, pending = redray.wait(pending, num_returns=1)
        print(f"after {time.perf_counter() - began:.2f} s: the task of {redray.get(ready[0])} s", flush=True)

    ready, pending = redray.wait([work.remote(1.0)], timeout=0.1)
    print(f"nothing within 0.1 s: {len(ready)} ready, {len(pending)} pending")


if __name__ == "__main__":
    main()
