"""How a data set is read."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, field_validator, model_validator

from mmsent.config.fields import READ, OnCommandLine, Settings, setting

DEFAULT_LABELS = ("negative", "neutral", "positive")
TEXT_ENCODINGS = ("utf-8", "gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252")


class Clean(StrEnum):
    """Steps of the optional text cleaning, applied in this order."""

    links = "links"
    mentions = "mentions"
    retweet = "retweet"
    hashtags = "hashtags"
    emoji = "emoji"


def _several(value: Any) -> Any:
    """`a,b` as (a, b)."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """`a=b,c=d` as {a: b, c: d}. Raises ValueError on a part that is no pair, and a name that stands twice."""
    if not isinstance(value, str):
        return value
    found: dict[str, str] = {}
    for part in filter(str.strip, value.split(",")):
        name, meant = (one.strip() for one in part.rpartition("=")[::2])
        if not (name and meant):
            raise ValueError(f"{part.strip()!r} is no pair; write NAME=VALUE, separated by commas")
        if found.setdefault(name, meant) != meant:
            raise ValueError(f"{name!r} stands twice")
    return found


READER_NAMES = (
    "guid",
    "mvsa",
    "mvsa-same",
    "memotion",
    "hateful-memes",
    "imagefolder",
    "label-studio",
    "argilla",
    "hf-parquet",
    "excel",
    "webdataset",
    "split-files",
    "manifest",
    "folder",
)

Pairs = BeforeValidator(_pairs)

ColumnName = Literal["id", "image", "text", "label", "split"]


class DataSettings(Settings):
    """How a data set is read. `columns` is a short way to set the five columns, in which its pairs end up."""

    labels: Annotated[tuple[str, ...], BeforeValidator(_several)] = setting(
        DEFAULT_LABELS, "The label set, separated by commas.", OnCommandLine(shown=",".join(DEFAULT_LABELS))
    )
    text_encoding: str | None = setting(
        None,
        "Encoding of all texts; utf-8+cp1252 for a mixture of two.",
        OnCommandLine(shown="decided once for the data set"),
    )
    encodings: tuple[str, ...] = setting(TEXT_ENCODINGS, "Encodings to try, in this order.")
    clean: tuple[Clean, ...] = setting(
        (), f"Clean texts before encoding: {', '.join(Clean)}. Repeat it for several steps.", READ
    )
    remote: tuple[str, ...] = setting(
        (), "Protocol of image URLs in a manifest that may be fetched, such as s3 or https. Repeatable.", READ
    )
    reader: str | None = setting(
        None, f"Reader of the data set: {', '.join(READER_NAMES)}.", OnCommandLine(shown="the one that recognises it")
    )
    columns: Annotated[dict[ColumnName, str], Pairs] = setting(
        {},
        "Columns by what they hold: text=tweet,image=img_path; also id, label and split.",
        OnCommandLine(shown="none"),
    )
    label_map: Annotated[dict[str, str], Pairs] = setting(
        {},
        "Labels by what the data set calls them: good=positive, or several with commas.",
        OnCommandLine(shown="none"),
    )
    images: str | None = setting(None, "Folder in which images that the data set names are looked for too.", READ)
    id_column: str = setting("id", "Manifest column with the ids.", READ)
    image_column: str = setting("image", "Manifest column with the image paths.", READ)
    text_column: str = setting("text", "Manifest column with the texts.", READ)
    label_column: str = setting("label", "Manifest column with the labels.", READ)
    split_column: str = setting("split", "Manifest column that says train or test.")

    @model_validator(mode="before")
    @classmethod
    def _columns(cls, values: Any) -> Any:
        try:
            pairs = _pairs(values.get("columns") or {})
        except ValueError:
            return values  # the field's own validator says it
        if not pairs.keys() <= set(get_args(ColumnName)):
            return values
        named = {f"{what}_column": name for what, name in pairs.items()}
        for field, name in named.items():
            if values.get(field) not in (None, name):
                what = field.removesuffix("_column")
                raise ValueError(f"--columns {what}={name} and --{what}-column {values[field]} contradict each other")
        return {name: value for name, value in values.items() if name != "columns"} | named

    @model_validator(mode="after")
    def _label_map(self) -> DataSettings:
        for name, label in self.label_map.items():
            if label not in self.labels:
                raise ValueError(f"--label-map {name}={label}: {label!r} is not one of {', '.join(self.labels)}")
        return self

    @field_validator("images")
    @classmethod
    def _images(cls, value: str | None) -> str | None:
        return os.path.abspath(value) if value else None  # other commands read it from where they are

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2 or len(set(value)) != len(value) or any(not v.strip() for v in value):
            raise ValueError("needs at least two different, non-empty labels")
        return value

    @field_validator("clean")
    @classmethod
    def _clean(cls, value: tuple[Clean, ...]) -> tuple[Clean, ...]:
        return tuple(step for step in Clean if step in value)  # always in the order of application

    @field_validator("remote")
    @classmethod
    def _remote(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in value)
