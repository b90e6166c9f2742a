"""`import ray` gives redray: the import hook of `redray run`, in the driver and in its job's workers.

`ray`, `ray.util.queue` and so on become second names of redray's own module objects, so there is one class for one
name: an `except ray.exceptions.RayTaskError` catches what redray raises, and what is pickled by its module's name loads
in processes without the hook. It stands first in `sys.meta_path`, so an installed Ray is not seen.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class RayAlias(MetaPathFinder, Loader):
    """Finds `ray` and everything below it in redray; leaves every other name to the finders behind it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "ray" and not fullname.startswith("ray."):
            return None
        module = _redrays(fullname)
        return ModuleSpec(fullname, self, origin=module.__file__, is_package=hasattr(module, "__path__"))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _redrays(spec.name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already. The import system has put its own spec into it: `importlib.reload` would follow that."""
        own = module.__spec__ and module.__spec__.loader_state
        if own is not None:
            module.__spec__ = own


def _redrays(name: str) -> ModuleType:
    wanted = f"redray{name[3:]}"
    try:
        return importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name != wanted:
            raise  # the module is there, and misses something that is not installed
        raise ModuleNotFoundError(
            f"No module named '{name}': this program runs under redray, which stands in for ray and has no '{wanted}'.",
            name=name,
        ) from None


_alias = RayAlias()


def install() -> None:
    """From now on `import ray` means redray in this process. Twice is as good as once.

    Raises:
        RuntimeError: Ray itself has been imported already.
    """
    if is_installed():
        return
    loaded = sys.modules.get("ray")
    if loaded is not None:
        raise RuntimeError(f"`import ray` cannot mean redray here: Ray itself is loaded, from {loaded.__file__}.")
    sys.meta_path.insert(0, _alias)


def is_installed() -> bool:
    return _alias in sys.meta_path
