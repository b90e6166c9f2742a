"""A fresh interpreter's way to its first result, and the memory at rest: `SYSTEM CPUS [--idle] --report FD`.

The clock is the parent's and starts before this process does, so nothing but the system under test is imported
before the result.
"""

import os
import sys


def main() -> None:
    # No argparse: its import would be timed too.
    system, cpus, report = sys.argv[1], int(sys.argv[2]), int(sys.argv[-1])
    os.set_inheritable(report, False)
    ray = __import__(system)
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)

    def answer() -> int:
        return 42

    if ray.get(ray.remote(answer).remote()) != 42:
        raise SystemExit("the first task returned something else than it was asked for")
    os.write(report, b'{"event": "first_result"}\n')
    if "--idle" in sys.argv:
        from benchmarks.processes import MARK, settled_mb

        os.write(report, b'{"idle_memory": %.3f}\n' % settled_mb(os.environ[MARK]))
    ray.shutdown()


if __name__ == "__main__":
    main()
