"""The pages of the games, for mkdocs: the list comes from the registry.

A game has `docs/games/NAME.md`; one that has none yet gets a page of its docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from games.registry import GAMES

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

_PAGE = """# {title}

## Problem

::: games.{name}.problem
{options}
## Rules

::: games.{name}.rules
{options}
## Solution and cost

::: games.{name}.solution
{options}"""
_OPTIONS = "    options: {members: false, show_root_heading: false, show_root_toc_entry: false}\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the games into the navigation."""
    for section in config.nav or []:
        if "Games" in section:
            section["Games"] = [{_title(name): f"games/{name}.md"} for name in GAMES]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Makes the pages that nobody wrote."""
    for name in GAMES:
        uri = f"games/{name}.md"
        if not (Path(config.docs_dir) / uri).exists():
            page = _PAGE.format(title=_title(name), name=name, options=_OPTIONS)
            files.append(File.generated(config, uri, content=page))
    return files


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
