"""Labels as data sets spell them."""

from __future__ import annotations

from mmsent.config import DataSettings

NO_LABEL = ("", "null", "none", "nan", "na", "n/a", "#n/a", "<na>")

_AS_NUMBER = {"true": "1", "false": "0"}


def label_of(value: str | None, settings: DataSettings) -> str | None:
    """The label that a cell or field holds, without blanks around it, by the label map where that names it; None for
    none, which has several spellings. Of a name that is not known, the case does not count, 1.0 is 1, and true and
    false are 1 and 0."""
    if value is None:
        return None
    plain = value.strip()
    names = {name: name for name in settings.labels} | settings.label_map
    for known in (plain, value):
        if known in names:
            return names[known]
    if plain.casefold() in NO_LABEL:
        return None
    for other in label_spellings(plain):
        if len(meant := {label for name, label in names.items() if name.casefold() == other}) == 1:
            return meant.pop()
    return plain


def label_spellings(name: str) -> tuple[str, ...]:
    """The names of labels, in small letters, that a name may mean, the likeliest first."""
    folded = name.casefold()
    return folded, folded.removesuffix(".0"), _AS_NUMBER.get(folded, folded)
