"""Spares a rank torch's compiler (a second, and 65 MiB) until something really needs it.

torch's optimizers import `torch._dynamo` only to make the compiler leave them alone. So a stand-in takes its place in
`sys.modules` and answers those calls. Everything else imports the real module: `torch.compile` in a user's own module,
for instance.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

_NAME = "torch._dynamo"


def install() -> None:
    """Put the stand-in where torch looks for its compiler, unless the real one is there already."""
    if _NAME in sys.modules:
        return
    stand_in = _LateCompiler(_NAME)
    sys.modules[_NAME] = stand_in
    torch._dynamo = stand_in
    sys.meta_path.insert(0, _SubmoduleFinder())


class _LateCompiler(ModuleType):
    """`torch._dynamo` until an attribute is needed that it lacks; then the real one takes its place."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._lock = threading.Lock()
        self._spared: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        """torch's own functions that the compiler must leave alone, with the arguments of `disable`."""

    def disable(self, function: Any = None, *args: Any, **options: Any) -> Any:
        """Return torch's own ``function`` as it is: while there is no compiler, nothing compiles it."""
        if not str(getattr(function, "__module__", "")).startswith("torch."):
            return self._real().disable(function, *args, **options)
        self._spared.append((function, args, options))
        return function

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Do nothing; outside compiled code the real one does nothing either."""

    def __getattr__(self, name: str) -> Any:
        # `inspect` asks every module for `__file__` and the like; `__path__` is what an import of a submodule needs.
        if name.startswith("__") and name.endswith("__") and name != "__path__":
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r} until it is loaded")
        return getattr(self._real(), name)

    def _real(self) -> Any:
        with self._lock:
            if sys.modules.get(_NAME) is self:
                del sys.modules[_NAME]
                vars(torch).pop("_dynamo", None)
        # Without our lock: Python has locks of its own for imports, and notices when two threads wait for each other.
        real = importlib.import_module(_NAME)
        with self._lock:
            spared, self._spared = self._spared, []
        # torch keeps the result of `disable` on the function; now the compiler has to respect it
        for function, args, options in spared:
            setattr(function, "__dynamo_disable", real.disable(function, *args, **options))
        return real


class _SubmoduleFinder(MetaPathFinder):
    """Keeps `import torch._dynamo.x` from running the module x twice.

    Python asks the stand-in for `__path__`, so the real package is imported, and most often x with it. Python would
    then load x once more.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_NAME + ".") or fullname not in sys.modules:
            return None
        return ModuleSpec(fullname, _Loaded(sys.modules[fullname]))


class _Loaded(Loader):
    """Loads a module that is loaded already: returns it as it is."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
