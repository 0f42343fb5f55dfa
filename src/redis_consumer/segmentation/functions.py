"""Runs the functions before and after a model by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from redis_consumer.processing import registry

#: Keyword arguments by the name of a function.
FunctionOptions = Mapping[str, Mapping[str, Any]]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Functions:
    """The functions that jobs can name: those of a user's script, of this package and of other packages.

    Attributes:
        own: functions of a user's script, by kind (``pre``, ``post``) and name.
        note: called for each function that is run, with kind, name, the function if it is one of a script, and options.
    """

    own: Mapping[str, Mapping[str, Function]]
    note: Callable[[str, str, Function | None, Mapping[str, Any]], None] = lambda *_: None

    def run(self, kind: str, names: Iterable[str], data: Any, options: FunctionOptions) -> Any:
        """Run functions in order, each on the output of the one before.

        Args:
            kind: ``pre`` or ``post``.
            names: of the functions.
            data: (B, Y, X, C), or the list of the model's outputs.
            options: keyword arguments by function name.
        """
        for name in names:
            self.note_all(kind, [name], options)
            own = self.find_own(kind, name)
            data = own(data) if own else registry.apply(kind, [name], data, options)
        return data

    def note_all(self, kind: str, names: Iterable[str], options: FunctionOptions) -> None:
        """Note for the record of the result that functions are run; arguments as for `run`."""
        for name in filter(None, names):
            self.note(kind, name, self.find_own(kind, name), options.get(name.strip().lower(), {}))

    def find(self, kind: str, name: str) -> Function:
        """Find a function by its name, in any case.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        return self.find_own(kind, name) or registry.get_function(kind, name)

    def find_own(self, kind: str, name: str) -> Function | None:
        """Return the function that a user's script has added under this name, in any case."""
        functions = self.own.get(kind, {})
        wanted = name.strip().lower()
        found = functions.get(name) or next((functions[key] for key in functions if key.lower() == wanted), None)
        return None if found is None or is_built_in(found, kind, name) else found

    def are_ours(self, preprocess: Iterable[str], postprocess: Iterable[str]) -> bool:
        """Return whether all of these functions are the package's own, which process one frame at a time."""
        kinds = {"pre": preprocess, "post": postprocess}
        return all(
            self.find_own(kind, name) is None and name.strip().lower() in registry.BUILT_IN[kind]
            for kind, names in kinds.items()
            for name in filter(None, names)
        )


def is_built_in(function: Function, kind: str, name: str) -> bool:
    """Whether a function is the one that this package has by a name."""
    is_known = name.strip().lower() in registry.BUILT_IN.get(kind, {})
    return is_known and function is registry.get_function(kind, name)


def as_batches(results: Any) -> Any:
    """Results of the methods of 2020, an image or a list of them, each with its batch axis."""
    return with_batch(results) if isinstance(results, np.ndarray) else [with_batch(each) for each in results]


def with_batch(image: Any) -> Any:
    """Return an image (Y, X, C) with a leading batch axis of 1. An image with a batch axis is unchanged."""
    array = np.asarray(image)
    return array[np.newaxis] if array.ndim == 3 else array
