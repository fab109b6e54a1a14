"""What a library imports for work that is never asked of it is imported when it is.

Half of the start of a job, and of Label Studio, went into such imports: PyTorch's compiler, the
clients of three clouds, a tokenizer of English.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def imported_later(*names: str, instead: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within the block, whoever imports one of these modules gets a stand-in.

    A function or class taken from a stand-in imports the real module when it is first called.
    Modules that are imported already stay as they are. Not for classes that are subclassed or asked
    for with `isinstance`: of a stand-in they are functions.

    Parameters
    ----------
    names : str
        Modules, each with the packages that it is in: `"nltk", "nltk.tokenize"`.
    instead : mapping of str to object
        What a stand-in has under a name, where it is called while the block still runs.

    Examples
    --------
    >>> with imported_later("colorsys"):
    ...     from colorsys import rgb_to_hls
    >>> rgb_to_hls(0.0, 0.0, 1.0)
    (0.6666666666666666, 0.5, 1.0)
    """
    stand_ins = {name: _StandIn(name, instead or {}) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


class _StandIn(ModuleType):
    def __init__(self, name: str, instead: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__dict__.update(instead)

    def __getattr__(self, attribute: str) -> Callable[..., Any]:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        module = self.__name__

        def called(*arguments: Any, **options: Any) -> Any:
            real = getattr(importlib.import_module(module), attribute)
            for key, value in vars(called).items():  # set on the stand-in of a class
                setattr(real, key, value)
            return real(*arguments, **options)

        self.__dict__[attribute] = called
        return called
