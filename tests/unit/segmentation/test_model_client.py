"""An author's names and values for a model become what a model server takes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from redis_consumer.segmentation.model_client import model_of, stacked


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ((4, 5), "items: they have shapes (4, 4, 1), (5, 5, 1); give at least one, and all in one size"),
        ((), "items: there are none"),
    ],
)
def test_items_that_cannot_be_stacked_are_refused_in_words(sides: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        stacked([np.zeros((side, side, 1)) for side in sides])


def test_what_names_no_model_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match="model: None is a NoneType; give a ModelId, or a text such as 'Nuclei:1'"):
        model_of(None)  # type: ignore[arg-type]
