"""Settings that are typed as pairs."""

from __future__ import annotations

import os

import pytest

from mmsent.config import DataSettings, settings
from mmsent.errors import UsageError


def test_columns_end_up_in_the_settings_of_columns() -> None:
    how = settings(DataSettings, columns="text=tweet, image = img,split=fold")
    assert (how.text_column, how.image_column, how.split_column) == ("tweet", "img", "fold")
    assert how.columns == {}
    assert how.model_fields_set == {"text_column", "image_column", "split_column"}
    assert how == settings(DataSettings, columns={"text": "tweet", "image": "img", "split": "fold"})
    assert DataSettings.model_validate(how.model_dump(mode="json")) == how


def test_label_maps_and_image_folders() -> None:
    how = settings(DataSettings, label_map="a=b=positive,very bad=negative", images="there")
    assert how.label_map == {"a=b": "positive", "very bad": "negative"}
    assert how.images == os.path.abspath("there")
    assert settings(DataSettings, labels="yes,no", label_map="1=yes").label_map == {"1": "yes"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"columns": "text"}, "'text' is no pair; write NAME=VALUE"),
        ({"columns": "txt=tweet"}, "Input should be 'id', 'image', 'text', 'label' or 'split'"),
        ({"columns": "text=a,text=b"}, "'text' stands twice"),
        ({"columns": "text=a", "text_column": "b"}, "--columns text=a and --text-column b contradict each other"),
        ({"label_map": "good"}, "'good' is no pair"),
        ({"label_map": "good=fine"}, "--label-map good=fine: 'fine' is not one of negative, neutral, positive"),
    ],
)
def test_pairs_that_are_wrong(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(DataSettings, **given)
    assert said in str(caught.value)
