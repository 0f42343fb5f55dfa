"""Runs the functions before and after a model by their names, as jobs give them and plug-ins call them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.consumers.predict import with_batch
from redis_consumer.consumers.serving import TensorFlowServingConsumer
from redis_consumer.consumers.tiling import Tiling
from redis_consumer.job import ModelId

#: Methods by which consumers of 2020 run a job's functions, and which their subclasses replace.
OLDER_METHODS = ("_get_processing_function", "preprocess", "postprocess", "process")


class FunctionConsumer(TensorFlowServingConsumer):
    """Adds functions of images to `TensorFlowServingConsumer`."""

    def _has_own(self, *methods: str) -> bool:
        """Whether a plug-in has replaced one of these methods."""
        return any(
            name in self.__dict__ or not getattr(type(self), name).__module__.startswith("redis_consumer.")
            for name in methods
        )

    def call_bytes_of(self, model: ModelId, shape: tuple[int, int, int, int]) -> int:
        """Bytes that one call of a model takes: as measured, else as its metadata let expect.

        Args:
            model: which one.
            shape: (B, Y, X, C) of the images for it.
        """
        if str(model) in self.call_bytes:
            return self.call_bytes[str(model)]
        if self._has_own_client or self._has_own("predict", "process_big_image"):
            # The model server isn't asked: it may not know the model.
            card = self.models.card(model)
            return Tiling(model, card=card.tile if card else None).estimated_call_bytes(shape, is_in_process=False)
        is_in_process = hasattr(self.model_server, "release")
        return self._tiling(model).estimated_call_bytes(shape, is_in_process=is_in_process)

    def _run_planned(
        self, process_type: str, names: Sequence[str], data: Any, options: Mapping[str, Mapping[str, Any]]
    ) -> Any:
        """Run the functions of a job, by the methods of 2020 where a plug-in has replaced one of these."""
        if not self._has_own(*OLDER_METHODS):
            return self.run_functions(process_type, names, data, options)
        method = self.preprocess if process_type == "pre" else self.postprocess
        results = method(data[0] if len(data) == 1 else data, names)
        return with_batch(results) if isinstance(results, np.ndarray) else [with_batch(each) for each in results]

    def run_functions(
        self, process_type: str, names: Iterable[str], data: Any, options: Mapping[str, Mapping[str, Any]]
    ) -> Any:
        """Run functions in order, each on what the one before gave.

        Args:
            process_type: ``pre`` or ``post``.
            names: of the functions.
            data: (B, Y, X, C), or the list of the model's outputs.
            options: keyword arguments by function name.
        """
        for name in names:
            data = self._run_function(process_type, name, data, options)
        return data

    def _run_function(
        self, process_type: str, name: str, data: Any, options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Any:
        from redis_consumer.processing import registry

        self.note_functions(process_type, [name], options or {})
        own = _own_function(process_type, name)
        return own(data) if own else registry.apply(process_type, [name], data, options or {})

    def note_functions(self, process_type: str, names: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> None:
        """Note for the record of the result that functions are run; arguments as for `run_functions`."""
        for name in filter(None, names):
            describe = partial(_describe_function, process_type, name, options.get(name.strip().lower(), {}))
            self.provenance.note_function(process_type, name, describe)

    def _get_processing_function(self, process_type: str, function_name: str) -> Callable[..., Any]:
        """Find a function by its name, in any case.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        from redis_consumer.processing import registry

        kind = process_type.strip().lower()
        return _own_function(kind, function_name) or registry.get_function(kind, function_name)

    def process(self, image: Any, key: str, process_type: str) -> Any:
        """Run one function by its name (contract, section 5.2); an empty name leaves the image as it is.

        The seconds that it took are written to the running job.

        Args:
            image: (B, Y, X, C) or (Y, X, C); after the model also the list of its outputs.
            key: name of the function, in any case.
            process_type: ``pre`` or ``post``.

        Returns:
            What the function gives, without its leading axis where that has a size of 1.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        if not key:
            return image
        started, kind = time.monotonic(), process_type.strip().lower()
        function = self._get_processing_function(kind, key)
        if _is_built_in(function, kind, key):
            batch = with_batch(image) if isinstance(image, np.ndarray) else [with_batch(each) for each in image]
            result = self._run_function(kind, key, batch)
        else:
            self.provenance.note_function(kind, key, partial(_describe_own, function))
            result = function(image)
        if self._redis_hash is not None:
            self.update_key(self._redis_hash, {f"{kind}process_time": f"{time.monotonic() - started:.6f}"})
        return result[0] if isinstance(result, np.ndarray) and result.ndim > 2 and len(result) == 1 else result

    def preprocess(self, image: Any, keys: Iterable[str], streaming: bool = False) -> Any:  # noqa: ARG002 - older name
        """Run the functions that go before the model by their names, each by `process`.

        Args:
            image: as for `process`.
            keys: of the functions, in order.
            streaming: not used; functions run in the worker.
        """
        for key in keys:
            image = self.process(image, key, "pre")
        return image

    def postprocess(self, image: Any, keys: Iterable[str], streaming: bool = False) -> Any:  # noqa: ARG002 - older name
        """Run the functions that go after the model by their names; arguments as for `preprocess`."""
        for key in keys:
            image = self.process(image, key, "post")
        return image


def _own_function(process_type: str, name: str) -> Callable[..., Any] | None:
    """The function that a script of the user's has put in by this name, in any case."""
    functions = defaults.get("PROCESSING_FUNCTIONS").get(process_type, {})
    wanted = name.strip().lower()
    found = functions.get(name) or next((functions[key] for key in functions if key.lower() == wanted), None)
    return None if found is None or _is_built_in(found, process_type, name) else found


def _is_built_in(function: Callable[..., Any], process_type: str, name: str) -> bool:
    from redis_consumer.processing import registry

    is_known = name.strip().lower() in registry.BUILT_IN.get(process_type, {})
    return is_known and function is registry.get_function(process_type, name)


def _describe_own(function: Callable[..., Any]) -> dict[str, Any]:
    from redis_consumer.consumers import conditions

    return {**conditions.origin(function), "options": {}}


def is_ours(preprocess: Iterable[str], postprocess: Iterable[str]) -> bool:
    """Whether all of these functions are the package's own: they look at one frame at a time."""
    from redis_consumer.processing import registry

    kinds = {"pre": preprocess, "post": postprocess}
    return all(
        _own_function(kind, name) is None and name.strip().lower() in registry.BUILT_IN[kind]
        for kind, names in kinds.items()
        for name in filter(None, names)
    )


def _describe_function(process_type: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    from redis_consumer.consumers import conditions
    from redis_consumer.processing import registry

    own = _own_function(process_type, name)
    if own is not None:
        return _describe_own(own)
    function = registry.get_function(process_type, name)
    origin = conditions.origin(function, registry.GROUPS[process_type])
    return {**origin, "options": conditions.options_of(function, given)}
