"""The house is kept tidy: nothing unfinished, nothing of one machine, nothing without its reason."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

from headrace.environment.failpoints import LABELS

ROOT = Path(__file__).parents[2]
OWN = Path(__file__)

BINARY = {".db", ".gz", ".ico", ".jpg", ".png", ".whl", ".woff2", ".zip"}
MAX_FILE_BYTES = 1 << 20
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "misc", "core"}

RESERVED = re.compile(r"(^|\.)(test|example|invalid|localhost|local|example\.(com|org|net))$")
"""Names that can never be a real host (RFC 2606, RFC 6761, RFC 6762)."""

HOSTS = {
    "127.0.0.1",
    "0.0.0.0",
    "[::1]",
    "::1",
    "169.254.169.254",
    "10.0.0.1",
    "github.com",
    "json-schema.org",
    "keepachangelog.com",
    "semver.org",
    "www.apache.org",
    "www.w3.org",
    "www.rfc-editor.org",
    "datatracker.ietf.org",
    "cloudevents.io",
    "docs.python.org",
    "www.sqlite.org",
    "sqlite.org",
    "aws.amazon.com",
    "docs.aws.amazon.com",
    "www.kernel.org",
    "creativecommons.org",
    "prometheus.io",
    "opentelemetry.io",
    "packaging.python.org",
    "toml.io",
}
"""The outside addresses this repository may speak of."""


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository that is text and not ignored."""
    listed = shutil.which("git") and subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed and listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked archive, or a machine without git
        found = [
            path
            for path in ROOT.rglob("*")
            if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        ]
    return tuple(path for path in found if path.is_file() and path.suffix not in BINARY)


def lines_with(pattern: re.Pattern[str], *, suffixes: set[str] | None = None) -> list[str]:
    """Where `pattern` occurs, as `file:line: text`."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if path != OWN and (suffixes is None or path.suffix in suffixes)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK|WIP)\b")
    assert lines_with(marks, suffixes={".py", ".md", ".sql", ".toml", ".sh", ".js", ""}) == []


def test_no_path_of_one_machine_is_written_down() -> None:
    homes = r"(?<![\w./-])/(?:home|root|Users|work|mnt|media)/\w"
    found = lines_with(re.compile(homes))
    here = [str(place) for place in (ROOT, Path.home()) if len(place.parts) > 2]
    found += [line for place in here for line in lines_with(re.compile(re.escape(place)))]
    assert found == []


def test_every_outside_address_is_one_we_chose() -> None:
    address = re.compile(
        r"\b(?:https?|kafka|postgresql|nats|redis|amqp|mqtt)://([^\s/:\"'`<>)\]}{,\\]+)"
    )
    strangers = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in files()
        if path.name != "LICENSE"
        for host in address.findall(path.read_text(errors="replace"))
        if (name := host.rpartition("@")[2].rstrip(".").lower()) not in HOSTS
        and "." in name
        and not RESERVED.search(name)
    ]
    assert strangers == []


def test_names_are_nouns_of_the_domain() -> None:
    vague = [
        str(path.relative_to(ROOT))
        for path in files()
        if path.suffix == ".py"
        and FORBIDDEN_NAMES & {path.stem, *path.relative_to(ROOT).parent.parts}
    ]
    assert vague == []


def test_what_is_silenced_names_its_rule_and_its_reason() -> None:
    bare = re.compile(r"#\s*noqa(?!:\s*[A-Z]+\d+)|#\s*type:\s*ignore(?!\[)")
    assert lines_with(bare, suffixes={".py"}) == []
    without_reason = [
        line
        for line in lines_with(re.compile(r"#\s*(noqa:|type: ignore\[)"), suffixes={".py"})
        if line.startswith("src/")
        and not re.search(r"(noqa: [A-Z0-9, ]+|ignore\[[\w-]+(, ?[\w-]+)*\])\s*(#|-|—)\s*\S", line)
    ]
    assert without_reason == []


def test_no_file_is_large_enough_to_be_data_or_a_build() -> None:
    large = [
        str(path.relative_to(ROOT)) for path in files() if path.stat().st_size > MAX_FILE_BYTES
    ]
    assert large == []


def test_every_text_file_ends_with_one_newline_and_has_no_trailing_blanks() -> None:
    untidy = [
        str(path.relative_to(ROOT))
        for path in files()
        if path.suffix in {".md", ".sql", ".toml", ".sh"}
        and (text := path.read_text(errors="replace"))
        and (not text.endswith("\n") or text.endswith("\n\n") or re.search(r"[ \t]+$", text, re.M))
    ]
    assert untidy == []


def test_tests_are_sentences() -> None:
    name = re.compile(r"^\s*(?:async )?def (test_\w+)", re.M)
    terse = [
        f"{path.relative_to(ROOT)}: {test}"
        for path in files()
        if path.suffix == ".py" and "tests" in path.relative_to(ROOT).parts
        for test in name.findall(path.read_text())
        if test.count("_") < 3
    ]
    assert terse == []


def test_every_failpoint_stands_somewhere_and_in_the_list() -> None:
    passed = {
        label
        for path in files()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "src")
        for label in re.findall(r"\bhit\(\s*\"([a-z:-]+)\"", path.read_text())
    }
    assert passed == set(LABELS)


def test_unit_tests_never_sleep() -> None:
    sleepers = [
        line
        for line in lines_with(re.compile(r"\b(time|asyncio)\.sleep\("), suffixes={".py"})
        if line.startswith("tests/unit/") and "sleep(0)" not in line
    ]
    assert sleepers == []


def test_no_two_test_files_share_a_name() -> None:
    """Pytest takes the second for the first one's module, so a run over both fails."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


SOURCE = ROOT / "src" / "headrace"
UNSHARED_ROWS = {
    "admin": set[str](),
    "bus": {"bus"},
    "delivery": {"committer", "observed_outputs", "order_store", "positions"},
    "security": {"signed_addresses", "tokens"},
}
"""By folder, the modules that change rows of the store by themselves: none of them appends."""


def test_whatever_appends_or_has_an_owner_is_committed_in_one_place() -> None:
    for folder in sorted(each.name for each in SOURCE.iterdir() if each.is_dir()):
        if folder in {"storage", "testing", "__pycache__"}:
            continue
        found = {
            page.stem
            for page in (SOURCE / folder).rglob("*.py")
            if re.search(r"storage\.apply\(", page.read_text())
        }
        assert found == UNSHARED_ROWS.get(folder, set()), f"{folder}: commit with the `Committer`"
