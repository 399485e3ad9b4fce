"""How the site is built: `make docs`. Nothing is fetched from a network, and every warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "mmsent"
author = "the mmsent authors"
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "mmsent_reference"]
exclude_patterns = ["_build"]

myst_heading_anchors = 4  # the anchors that GitHub gives to headings
myst_links_external_new_tab = False
nitpicky = True
# Types of Python, NumPy, torch and of our own insides appear in signatures; only public names have a page to link to.
nitpick_ignore_regex = [("py:.*", ".*")]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

smartquotes = False  # it would turn the two dashes of an option into one
highlight_language = "text"  # of code blocks that name no language
html_theme = "furo"
html_title = "mmsent"
html_show_sphinx = False
html_copy_source = False
