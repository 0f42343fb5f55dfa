"""Chooses the channels of an image for a model, by the job, by what the file says of them, or by their pixels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.images.axes import as_read

#: What makes each channel for a model: the indices of channels of the image, whose mean it is; none for zeros.
Picks = tuple[tuple[int, ...], ...]

#: Names of channels that show transmitted light.
_TRANSMITTED = re.compile(
    r"(?<![a-z])(bf|dic|tl|td|t-?pmt|esid|trans|transmi\w*|nomarski|hoffman|oblique|(bright|dark)[ _-]?field"
    r"|phase([ _-]?contrast)?)(?![a-z])",
    re.IGNORECASE,
)
_COLOURS = ("red", "green", "blue")
_MOST_LISTED, _SHOWN, _MOST_NAMES = 16, 40, 200


@dataclass(frozen=True)
class Channel:
    """What a file says of a channel.

    Attributes:
        name: its name; empty for none.
        is_transmitted: whether it shows transmitted light, such as brightfield or phase contrast.
    """

    name: str = ""
    is_transmitted: bool = False


def channel_named(name: str, *modes: str) -> Channel:
    """Describe a channel by its name, and by what else the file says of how it was taken.

    >>> channel_named("TL Brightfield").is_transmitted, channel_named("DAPI").is_transmitted
    (True, False)
    """
    return Channel(name, any(_TRANSMITTED.search(text) is not None for text in (name, *modes)))


@dataclass(frozen=True)
class Channels:
    """The channels of an image, in the order of the last axis of `redis_consumer.images.image.to_batch`.

    Attributes:
        described: what is known of each; the samples of a colour are channels here.
        colours: indices of red, green and blue of each colour; empty if the image has none.
        reading: how the image was read, for messages.
    """

    described: tuple[Channel, ...]
    colours: tuple[tuple[int, ...], ...] = ()
    reading: str = ""

    @classmethod
    def of(cls, count: int, colour: tuple[int, int], known: tuple[Channel, ...], reading: str) -> Channels:
        """Describe the channels of an image.

        Args:
            count: of channels, without the samples of a colour.
            colour: number of samples of a colour, 1 for none; and the number of channels between two of them.
            known: what the file says of each channel; empty for nothing.
            reading: as the attribute.
        """
        known = known if len(known) == count else (Channel(),) * count
        samples, stride = colour
        if samples == 1:
            return cls(known, (), reading)
        step = samples if stride == 1 else 1
        colours = [tuple(c * step + sample * stride for sample in range(samples)) for c in range(count)]
        described = {}
        for channel, indices in zip(known, colours, strict=True):
            for sample, index in enumerate(indices):
                word = _COLOURS[sample] if samples == len(_COLOURS) else str(sample)
                described[index] = replace(channel, name=f"{channel.name} {word}".strip())
        return cls(tuple(described[index] for index in sorted(described)), tuple(colours), reading)

    def __len__(self) -> int:
        return len(self.described)

    def listed(self, indices: Iterable[int] | None = None) -> str:
        """List channels by index and name, up to 16 of them."""
        wanted = range(len(self)) if indices is None else list(indices)
        texts = [f"{index} {self.described[index].name[:_SHOWN]}".strip() for index in wanted[:_MOST_LISTED]]
        return ", ".join(texts) + (", …" if len(wanted) > _MOST_LISTED else "")

    def names_of(self, picks: Picks) -> str:
        """Join the names that the file gives to some channels by commas, each once. Samples of a colour have none."""
        used = dict.fromkeys(self.described[index].name.strip() for pick in picks for index in pick)
        return "" if self.colours else ", ".join(name[:_SHOWN] for name in used if name)[:_MOST_NAMES]

    def index_of(self, wanted: int | str, name: str) -> int:
        """Return the index of a channel that a job names by index or by name, in any case.

        Args:
            wanted: index or name.
            name: the user's name for the file, for messages.

        Raises:
            InvalidImage: there is no such channel, or several have the name.
        """
        if isinstance(wanted, int) and 0 <= wanted < len(self):
            return wanted
        key = str(wanted).strip().casefold()
        found = [index for index, channel in enumerate(self.described) if channel.name.strip().casefold() == key]
        if len(found) == 1:
            return found[0]
        fault = f"but {len(found)} channels have this name" if found else f"but the image has {len(self)}"
        raise InvalidImage(
            f"{name}: field channels asks for channel {str(wanted)[:_SHOWN]}, {fault} ({self.listed()}); correct the "
            f"field, or upload an image with all channels {as_read(self.reading)}".rstrip()
        )


@dataclass(frozen=True)
class Choice:
    """The channels that a model gets.

    Attributes:
        channels: those of the image.
        picks: what makes each channel for the model.
        text: the job's field ``channels_read``.
        is_open: whether the pixels decide which sample of a colour is used; `decided` says it.
        needs_signal: whether a channel without signal is refused.
        is_required: whether a colour that isn't grey is refused, because the job has to name its channel.
    """

    channels: Channels
    picks: Picks
    text: str
    is_open: bool = False
    needs_signal: bool = False
    is_required: bool = False

    @property
    def names(self) -> str:
        """Names of the channels that the model gets, see `Channels.names_of`."""
        return self.channels.names_of(self.picks)

    @property
    def seen(self) -> tuple[int, ...]:
        """Indices of the channels whose pixels `decided` must see; none if it needn't be called."""
        return self.picks[0] if self.is_open or self.needs_signal else ()

    def decided(self, seen: SeenChannels, name: str) -> Choice:
        """Complete the choice by the pixels.

        Args:
            seen: what `look` found in the channels of `seen`.
            name: the user's name for the file, for messages.

        Raises:
            InvalidImage: the channel has no signal, or the job has to name it.
        """
        indices, all_listed = self.seen, self.channels.listed()
        if not self.is_open:
            if not any(seen.has_signal):
                raise InvalidImage(
                    f"{name}: channel {self.channels.listed(indices)} has no signal, all its pixels are "
                    f"{seen.low[0]:g}; the channels are {all_listed}: name another in field channels "
                    f"{as_read(self.channels.reading)}".rstrip()
                )
            return self
        if seen.are_equal:
            return replace(self, picks=(indices[:1],), text=f"grey, {self.channels.listed(indices)} are equal")
        if self.is_required:
            raise _required(self.channels, name)
        with_signal = [index for index, has_signal in zip(indices, seen.has_signal, strict=True) if has_signal]
        if len(with_signal) == 1:
            text = f"{self.channels.listed(with_signal)}, the only one of {all_listed} with signal"
            return replace(self, picks=(tuple(with_signal),), text=text)
        return replace(self, text=f"grey, the mean of {self.channels.listed(indices)}")


def choose(
    named: Sequence[int | str | None] | None,
    channels: Channels,
    name: str,
    *,
    takes: int | None = None,
    is_required: bool = False,
) -> Choice:
    """Choose channels of an image for a model.

    Those that the job names. If it names none and the model takes one of several: the first that does not show
    transmitted light, or else the first; of a colour, the sample with signal, or else the mean of all.

    Args:
        named: the job's field ``channels``; None for none.
        channels: of the image.
        name: the user's name for the file, for messages.
        takes: number of channels that the model takes; None if it isn't known.
        is_required: whether a job must name its channel if there are several.

    Raises:
        InvalidImage: the image has no such channel, or the job has to name one.
    """
    needs_signal = takes == 1 and len(channels) > 1
    if named is not None:
        picks = tuple(() if each is None else (channels.index_of(each, name),) for each in _places(named, takes))
        return Choice(channels, picks, f"{_texts(channels, picks)}, from channels", needs_signal=needs_signal)
    if not needs_signal:
        text = "the only one" if len(channels) == 1 else "all"
        return Choice(channels, tuple((index,) for index in range(len(channels))), f"{channels.listed()}, {text}")
    return _chosen(channels, name, is_required=is_required)


def _chosen(channels: Channels, name: str, *, is_required: bool) -> Choice:
    """Choose one of several channels, see `choose`."""
    units = channels.colours or tuple((index,) for index in range(len(channels)))
    if is_required and len(units) > 1:
        raise _required(channels, name)
    first = next((unit for unit in units if not channels.described[unit[0]].is_transmitted), units[0])
    if len(first) > 1:
        return Choice(channels, (first,), f"grey of {channels.listed(first)}", is_open=True, is_required=is_required)
    why = "the first that does not show transmitted light" if _tells_light(channels) else "the first"
    return Choice(channels, (first,), f"{channels.listed(first)}, {why} of {channels.listed()}", needs_signal=True)


def _texts(channels: Channels, picks: Picks) -> str:
    """List the channels that are picked; an empty place holds zeros."""
    return ", ".join(channels.listed(pick) if pick else "zeros" for pick in picks)


def _places(named: Sequence[int | str | None], takes: int | None) -> list[int | str | None]:
    """The places of the field ``channels`` that are used. Empty ones are zeros only if the model takes several."""
    filled = [each for each in named if each is not None]
    if takes is None or takes < 2 or len(filled) >= takes:
        return [*filled]
    places = list(named)
    while len(places) > takes and places[-1] is None:
        places.pop()
    return places


def _tells_light(channels: Channels) -> bool:
    return any(channel.is_transmitted for channel in channels.described)


def _required(channels: Channels, name: str) -> InvalidImage:
    return InvalidImage(
        f"{name}: has channels {channels.listed()}, and the job names none (CHANNELS_REQUIRED); give the field "
        f"channels, e.g. 0 {as_read(channels.reading)}".rstrip()
    )


@dataclass(frozen=True)
class SeenChannels:
    """What the pixels of some channels say.

    Attributes:
        low: smallest value of each.
        has_signal: whether a channel has different values.
        are_equal: whether all have the same pixels.
    """

    low: tuple[float, ...]
    has_signal: tuple[bool, ...]
    are_equal: bool


def look(parts: Iterable[npt.NDArray[Any]], count: int) -> SeenChannels:
    """Look at pixels until it is known which channels have signal, and whether all are equal.

    Args:
        parts: (..., count) each.
        count: number of channels.
    """
    low, high, are_equal = np.full(count, np.inf), np.full(count, -np.inf), True
    for part in parts:
        flat = part.reshape(-1, count)
        low, high = np.minimum(low, flat.min(axis=0)), np.maximum(high, flat.max(axis=0))
        are_equal = are_equal and bool((flat == flat[:, :1]).all())
        if (low < high).all() and (count == 1 or not are_equal):
            break
    return SeenChannels(tuple(low.tolist()), tuple((low < high).tolist()), are_equal)


def combine(planes: npt.NDArray[Any], picks: Picks) -> npt.NDArray[np.float32]:
    """Make the channels for a model.

    Args:
        planes: (..., C) with all channels of the image.
        picks: what makes each of the results.

    Returns:
        (..., len(picks)) float32.
    """
    if picks == tuple((index,) for index in range(planes.shape[-1])):
        return np.ascontiguousarray(planes, np.float32)
    result = np.zeros((*planes.shape[:-1], len(picks)), np.float32)
    for place, indices in enumerate(picks):
        if len(indices) == 1:
            result[..., place] = planes[..., indices[0]]
        elif indices:
            result[..., place] = planes[..., list(indices)].mean(axis=-1, dtype=np.float64)
    return result
