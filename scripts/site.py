"""Build a site of all pages, with search, into `site/`: `make site`.

The pages are copied beside each other as they lie in the repository, so that links between them stay
what they are; a link to a file that is not a page becomes its name. A link that leads nowhere, or to a
heading that is not there, fails the build.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "site"
PAGES = BUILD / "pages"
FIRST = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
GUIDES = (
    "first-function",
    "producing",
    "requests",
    "failures",
    "testing",
    "later",
    "joining",
    "windows",
    "configuration",
    "deploying",
    "https",
)
"""In the order in which a new user reads them."""
_LINK = re.compile(r"\[([^\]\[]*(?:\[[^\]]*\][^\]\[]*)*)\]\(([^()\s]+)\)")
THEME = """
[project.theme]
language = "en"
font = false
features = ["content.code.copy", "navigation.footer", "navigation.sections", "navigation.top", "search.highlight"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle.icon = "lucide/sun"
toggle.name = "Dark"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle.icon = "lucide/moon"
toggle.name = "Light"
"""


def main() -> int:
    """Copy, write the settings, build."""
    shutil.rmtree(BUILD, ignore_errors=True)
    pages = [ROOT / "README.md", *(ROOT / name for name in FIRST)]
    pages += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")]
    for page in pages:
        to = PAGES / page.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(_with_links_among(pages, page))
    (BUILD / "zensical.toml").write_text(settings())
    # Where the program is depends on where this Python's scripts are.
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=BUILD, check=False)
    if done.returncode == 0:
        shutil.rmtree(ROOT / "site", ignore_errors=True)
        shutil.move(BUILD / "site", ROOT / "site")
        sys.stdout.write(
            f"site: {len(pages)} pages; open site/index.html, or serve it: python -m http.server -d site\n"
        )
    return done.returncode


def _with_links_among(pages: list[Path], page: Path) -> str:
    """The page's text, whose links to what is not a page are their names alone."""

    def shown(link: re.Match[str]) -> str:
        target = link[2].partition("#")[0]
        if not target or "://" in target or target.startswith("mailto:"):
            return link[0]
        found = (page.parent / target).resolve()
        if not found.exists():
            raise SystemExit(
                f"{page.relative_to(ROOT)} has a link to `{target}`, which is not there"
            )
        return link[0] if found in pages else link[1]

    return _LINK.sub(shown, page.read_text())


def settings() -> str:
    """The settings of the site, with every page in its navigation."""
    docs = ROOT / "docs"
    examples = sorted(page.parent.name for page in (ROOT / "examples").glob("*/README.md"))
    concepts, reference = (
        sorted(page.name for page in (docs / name).glob("*.md"))
        for name in ("concepts", "reference")
    )
    nav = [
        {"Headrace": "README.md"},
        {"Guides": [f"docs/guides/{name}.md" for name in GUIDES]},
        {"Concepts": [f"docs/concepts/{name}" for name in concepts]},
        {"Reference": [f"docs/reference/{name}" for name in reference]},
        {"Examples": [f"examples/{name}/README.md" for name in examples]},
        {
            "The project": [
                *("docs/performance.md", "docs/reliability.md", "docs/mutants.md"),
                *FIRST,
                {"Decisions": _decisions()},
            ]
        },
    ]
    return f"""[project]
site_name = "Headrace"
site_description = "Functions that events trigger, with every effect exactly once"
docs_dir = "pages"
site_dir = "site"
use_directory_urls = false
nav = {_inline(nav)}
{THEME}
[project.markdown_extensions]
attr_list = {{}}
tables = {{}}
toc.permalink = true
toc.slugify = {{ object = "pymdownx.slugs.slugify", kwds = {{ case = "lower" }} }}
pymdownx.superfences = {{}}
pymdownx.highlight.anchor_linenums = true
pymdownx.inlinehilite = {{}}
"""


def _decisions() -> list[str]:
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    return ["docs/decisions/README.md", *(f"docs/decisions/{page.name}" for page in pages)]


def _inline(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(name)} = {_inline(each)}" for name, each in value.items())
            + " }"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
