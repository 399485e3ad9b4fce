"""The root's documents and the pages: links lead somewhere, both READMEs say the same commands, pages are listed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOT_PAGES = ("README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "cache/README.md")
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*.md")
    if not {"_build", "project"} & set(path.relative_to(ROOT).parts)
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MyST give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES])
def test_links_lead_to_files_and_headings(page: str) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.resolve())):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_readmes_are_short(page: str) -> None:
    assert len(text_of(page).splitlines()) <= 150


def test_both_readmes_give_the_same_commands_and_numbers() -> None:
    def said(page: str) -> tuple[list[str], list[str], list[str]]:
        text = text_of(page)
        blocks = re.findall(r"^```(?:sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        commands = [re.sub(r"\s*#.*", "", line).strip() for block in blocks for line in block.splitlines()]
        return commands, re.findall(r"\d\.\d{3}", text), re.findall(r"\]\(([^)]+)\)", text)[1:]

    english, chinese = said("README.md"), said("README.zh.md")
    assert english[0] == chinese[0]
    assert english[1] == chinese[1]
    assert english[2] == chinese[2]


def test_chinese_prose_has_full_width_punctuation() -> None:
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", FENCE.sub("", text_of("README.zh.md")))
    assert not re.findall(r"[\u4e00-\u9fff][,;:!?()]|[,;:!?(][\u4e00-\u9fff]", prose)


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = {"docs/index.md"}
    for page in PAGES:
        folder = Path(page).parent
        for toctree in re.findall(r"^```\{toctree\}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
            listed |= {str(folder / f"{line}.md") for line in toctree.splitlines() if line and not line.startswith(":")}
    assert set(PAGES) <= listed


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES])
def test_no_page_names_a_module_that_is_not_there(page: str) -> None:
    absent = []
    for name in set(re.findall(r"`(mmsent(?:\.[a-z_]+)+)`", text_of(page))):
        parts = name.split(".")
        homes = [ROOT.joinpath(*parts[:k]) for k in (len(parts), len(parts) - 1) if k > 1]
        known = any(home.is_dir() or home.with_suffix(".py").is_file() for home in homes)
        if not known and len(parts) > 2:
            absent.append(name)
    assert not absent
