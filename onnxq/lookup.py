"""Functions of the user's own, by the name ``module:function``: code of their choice, which is run."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any


def find_function(name: str) -> Callable[..., Any]:
    """The function called ``module:function``; the module may lie in the working directory.

    Raises:
        ImportError: There is no such module or function, it is no function, or the module fails.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise ImportError(f"{name!r} is not of the form module:function")
    found: Callable[..., Any] | None = getattr(_import_from_here(module_name), function_name, None)
    if callable(found):
        return found
    what = "nothing" if found is None else f"a {type(found).__name__}"
    raise ImportError(f"{function_name!r} in module {module_name!r} is {what}, not a function")


def _import_from_here(name: str) -> Any:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(f"module {name!r} fails: {type(error).__name__}: {error}") from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
