"""The tools of a library, one module each: `from toolbox import NAME` gives the function NAME of toolbox/NAME.py.

A tool is imported when it is first asked for, so one that is broken is in nobody's way.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class Toolbox(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        try:
            importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
            raise AttributeError(f"there is no tool {name}") from None
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = getattr(value, name)  # the import system puts the module here: callers want the function
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = Toolbox
