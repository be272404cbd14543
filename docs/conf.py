"""Sphinx: how the documentation is built. `./run docs` builds it, and every warning is an error."""

from __future__ import annotations

import pyipc

project = "pyipc"
author = "pyipc contributors"
copyright = f"2026, {author}"
version = release = pyipc.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pyipc {release}"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# In docstrings, `Name` is a reference to an object where there is one and code where there is none.
default_role = "any"
nitpicky = False
suppress_warnings = ["ref.any"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"Allow": "Allow"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Yields"]
