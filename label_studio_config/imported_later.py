"""What a library imports for work that is never asked of it is imported when it is.

A quarter of Label Studio's start, and two fifths of the backend's, went into such imports (see
docs/benchmarks.md): PyTorch's compiler, the clients of three clouds, a tokenizer of English.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def imported_later(
    functions: Mapping[str, Iterable[str]], instead: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[None]:
    """Within the block, `from module import function` gives a function that imports it when called.

    Where more is wanted of a module, also a submodule, or the function is called within the block,
    no module is put off any more: a library that changes costs time and nothing else.
    Modules that are imported already stay as they are.

    Parameters
    ----------
    functions : mapping of str to iterable of str
        Modules, and what is taken of each: functions, or classes that are only made, since what is
        given is no class. Not for `import package.module`, which binds the package.
    instead : mapping of str to mapping of str to object
        Modules, and what stands in for a name of each for good.

    Examples
    --------
    >>> with imported_later({"colorsys": ["rgb_to_hls"]}):
    ...     from colorsys import rgb_to_hls
    >>> rgb_to_hls(0.0, 0.0, 1.0)
    (0.6666666666666666, 0.5, 1.0)
    """
    stand_ins: dict[str, ModuleType] = {}

    def withdraw() -> None:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]

    for name in {**functions, **(instead or {})}:
        if name not in sys.modules:
            kept = (instead or {}).get(name, {})
            stand_ins[name] = _StandIn(name, set(functions.get(name, ())), kept, withdraw)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        withdraw()


class _StandIn(ModuleType):
    def __init__(
        self,
        name: str,
        functions: set[str],
        instead: Mapping[str, Any],
        withdraw: Callable[[], None],
    ) -> None:
        super().__init__(name)
        self.__path__ = _Path(self._real)  # type: ignore[assignment]
        self.__dict__.update(instead)
        self._functions = functions
        self._withdraw = withdraw

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # asked by Python itself
            raise AttributeError(attribute)

        if attribute not in self._functions:
            return getattr(self._real(attribute), attribute)

        def called(*arguments: Any, **options: Any) -> Any:
            function = getattr(self._real(attribute), attribute)
            for key, value in vars(called).items():  # set on the stand-in of a class
                setattr(function, key, value)
            return function(*arguments, **options)

        self.__dict__[attribute] = called
        return called

    def _real(self, *attributes: str) -> ModuleType:
        """The module itself; as `from module import attribute` has it, a submodule is imported."""
        self._withdraw()
        return __import__(self.__name__, fromlist=["__name__", *attributes])


class _Path:
    """Where a package's submodules are; looked at when one of them is imported."""

    def __init__(self, package: Callable[[], ModuleType]) -> None:
        self.package = package

    def __iter__(self) -> Iterator[str]:
        return iter(getattr(self.package(), "__path__", ()))
