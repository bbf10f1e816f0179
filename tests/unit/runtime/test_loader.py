"""Finding an app from what the author typed, and the version of its code."""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.model.errors import Misuse
from headrace.runtime.child.loader import explain, load

APP = "from headrace import App\n{name} = App('{title}')\n"


@pytest.fixture(autouse=True)
def _tidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no module and no path behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_file_with_one_app_is_enough(tmp_path: Path) -> None:
    file = written(tmp_path, "one_app_file.py", APP.format(name="app", title="shop"))
    assert load(str(file)).name == "shop"


def test_an_attribute_chooses_among_several(tmp_path: Path) -> None:
    text = APP.format(name="a", title="first") + "b = App('second')\n"
    file = written(tmp_path, "two_apps_file.py", text)
    assert load(f"{file}:b").name == "second"
    with pytest.raises(Misuse, match=r"several apps; say which: .*:a`, .*:b`"):
        load(str(file))


def test_one_app_under_two_names_is_one_app(tmp_path: Path) -> None:
    file = written(tmp_path, "alias_file.py", APP.format(name="a", title="shop") + "b = a\n")
    assert load(str(file)).name == "shop"


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, "neighbour_of_app.py", "TITLE = 'shop'\n")
    text = "from headrace import App\nfrom neighbour_of_app import TITLE\napp = App(TITLE)\n"
    assert load(str(written(tmp_path, "importing_file.py", text))).name == "shop"


def test_a_package_is_loaded_by_its_dotted_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "company_x/__init__.py", "")
    written(tmp_path, "company_x/shop.py", APP.format(name="app", title="shop"))
    monkeypatch.chdir(tmp_path)
    assert load("company_x.shop").name == "shop"
    assert load("company_x.shop:app").name == "shop"


def test_a_folder_is_looked_through_for_the_usual_files(tmp_path: Path) -> None:
    written(tmp_path / "shop", "function.py", APP.format(name="app", title="shop"))
    assert load(str(tmp_path / "shop")).name == "shop"
    with pytest.raises(Misuse, match=r"holds none of function.py, app.py"):
        load(str(tmp_path))


def test_a_file_named_like_a_loaded_module_does_not_take_its_place(tmp_path: Path) -> None:
    import json

    file = written(tmp_path, "json.py", APP.format(name="app", title="shop"))
    assert load(str(file)).name == "shop"
    assert sys.modules["json"] is json


def test_the_same_file_is_imported_once(tmp_path: Path) -> None:
    file = written(tmp_path, "once_file.py", APP.format(name="app", title="shop"))
    assert load(str(file)) is load(str(file))


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("x = 1\n", "{file}", r"defines no `App` at its top level; write `app = App"),
        ("x = 1\n", "{file}:x", r"is a `int`, not an `App`"),
        ("apps = 1\n", "{file}:app", r"has nothing called `app` \(did you mean `apps`"),
        ("x = 1\n", "{folder}/fil.py", r"there is no file `.*fil.py` \(did you mean `file.py`"),
        ("x = 1\n", "no_such_module_x.shop", r"there is no module `no_such_module_x.shop`"),
        ("x = 1\n", "", r"no target was given"),
    ],
)
def test_a_target_that_leads_nowhere_says_what_was_looked_for(
    tmp_path: Path, text: str, target: str, message: str
) -> None:
    file = written(tmp_path, "file.py", text)
    with pytest.raises(Misuse, match=message):
        load(target.format(file=file, folder=tmp_path))


def test_what_the_module_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    file = written(tmp_path, "broken_file.py", "import a_library_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        load(str(file))
    assert "broken_file" not in sys.modules


@pytest.mark.parametrize(
    ("text", "sentence", "lines"),
    [
        ("1 / 0\n", "division by zero", ["line 1, in <module>", "1 / 0", "ZeroDivisionError"]),
        ("x = (\n", "'(' was never closed", ["line 1", "x = (", "SyntaxError"]),
        ("import nowhere_at_all\n", "No module named", ["import nowhere_at_all"]),
        ("import json\njson.loads('{')\n", "Expecting", ["in <module>", "in loads", "JSONDecode"]),
        (
            "try:\n    1 / 0\nexcept Exception:\n    {}['a']\n",
            "'a'",
            ["1 / 0", "ZeroDivisionError", "During handling", "{}['a']", "KeyError"],
        ),
    ],
)
def test_a_failed_import_shows_the_authors_lines_alone(
    tmp_path: Path, text: str, sentence: str, lines: list[str]
) -> None:
    file = written(tmp_path, "fails_file.py", text)
    with pytest.raises(Exception, match=r".*") as caught:
        load(str(file))
    told, trace = explain(caught.value)
    assert sentence in told
    at = -1
    for line in lines:
        assert (at := trace.find(line, at + 1)) >= 0, (line, trace)
    assert "loader.py" not in trace
    assert "importlib" not in trace


def test_what_we_refuse_is_a_sentence_with_the_line_that_asked_for_it(tmp_path: Path) -> None:
    text = "from headrace import App, Every\napp = App('a')\n\nslow = Every(0)\n"
    file = written(tmp_path, "refused_file.py", text)
    with pytest.raises(Misuse) as caught:
        load(str(file))
    told, trace = explain(caught.value)
    assert told.startswith(f"{file}:4: the period of `Every(0)` is 0 s")
    assert trace == ""


def test_a_place_that_is_told_already_is_not_told_twice(tmp_path: Path) -> None:
    text = "from headrace import App\napp = App('a')\ns = app.stream('s', partitions=0)\n"
    file = written(tmp_path, "placed_file.py", text)
    with pytest.raises(Misuse) as caught:
        load(str(file))
    assert explain(caught.value)[0].count(str(file)) == 1


def test_a_file_that_is_not_there_has_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(Misuse) as caught:
        load(str(tmp_path / "nowhere.py"))
    told, trace = explain(caught.value)
    assert told.startswith("there is no file")
    assert trace == ""


def test_a_file_that_cannot_be_opened_is_a_sentence_too(tmp_path: Path) -> None:
    file = tmp_path / "locked_file.py"
    assert explain(PermissionError(13, "Permission denied", str(file))) == (
        f"[Errno 13] Permission denied: '{file}'",
        "",
    )


def stale(folder: Path, name: str, old: str, new: str) -> Path:
    """A source whose bytecode is of another one that looks alike by size and second."""
    file = written(folder, name, old)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    py_compile.compile(str(file), doraise=True)
    assert len(old) == len(new)
    file.write_text(new)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    return file


def test_an_app_is_what_its_source_says_whatever_bytecode_lies_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "stale_app_folder"
    stale(folder, "stale_neighbour.py", "TITLE = 'old'\n", "TITLE = 'new'\n")
    stale(folder / "stale_inner", "__init__.py", "MORE = 'old'\n", "MORE = 'new'\n")
    text = (
        "from headrace import App\nfrom stale_neighbour import TITLE\nfrom stale_inner import MORE\n"
        "app = App(TITLE + MORE + '{}')\n"
    )
    file = stale(folder, "stale_app.py", text.format("-old"), text.format("-new"))
    assert load(str(file)).name == "newnew-new"


def test_an_app_named_as_a_module_is_what_its_source_says_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stale(tmp_path / "stale_company", "titles.py", "TITLE = 'old'\n", "TITLE = 'new'\n")
    written(tmp_path / "stale_company", "__init__.py", "")
    text = "from headrace import App\nfrom stale_company.titles import TITLE\napp = App(TITLE)\n"
    written(tmp_path / "stale_company", "shop.py", text)
    assert load("stale_company.shop").name == "new"


def test_bytecode_of_what_is_not_the_apps_is_read_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "lib" / "site-packages"
    stale(packages, "stale_package.py", "TITLE = 'old'\n", "TITLE = 'new'\n")
    monkeypatch.syspath_prepend(packages)
    text = "from headrace import App\nfrom stale_package import TITLE\napp = App(TITLE)\n"
    assert load(str(written(tmp_path, "with_packages.py", text))).name == "old"


def test_a_mistake_in_a_neighbour_is_told_with_the_lines_that_led_there(tmp_path: Path) -> None:
    written(tmp_path, "broken_neighbour.py", "def (:\n")
    file = written(tmp_path, "leads_to_broken.py", "import broken_neighbour\n")
    with pytest.raises(SyntaxError) as raised:
        load(str(file))
    _, trace = explain(raised.value)
    assert [line.split(",")[0].strip() for line in trace.splitlines() if "File" in line] == [
        f'File "{file}"',
        f'File "{tmp_path / "broken_neighbour.py"}"',
    ]
    assert "import broken_neighbour" in trace
