"""Settings: every source, their order, and what is said about what cannot be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.model.errors import Misuse
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.policy import Breaker, DeadLetter, ParkKey, Resources, Retry
from headrace.node.config import Settings, load


def settings(
    folder: Path, text: str = "", env: dict[str, str] | None = None, **options: object
) -> Settings:
    if text:
        (folder / "headrace.toml").write_text(text)
    return load(options, environ=env or {}, folder=folder)


def shop(**function: object) -> AppSpec:
    return AppSpec(
        name="shop",
        streams=(StreamSpec(name="orders", owner="shop"),),
        functions=(FunctionSpec(name="shop.price", app="shop", **function),),  # type: ignore[arg-type]
    )


def test_without_any_source_the_defaults_hold(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found.host, found.port, found.data) == ("127.0.0.1", 4280, Path(".headrace"))
    assert found.apply(shop()) == shop()


def test_a_node_trusts_no_address_unless_its_command_or_a_source_says_so(tmp_path: Path) -> None:
    assert settings(tmp_path).access == "token"
    usual = {"access": "local"}
    assert load(environ={}, folder=tmp_path, usual=usual).access == "local"
    (tmp_path / "headrace.toml").write_text("[node]\naccess = 'token'\n")
    assert load(environ={}, folder=tmp_path, usual=usual).access == "token"


def test_later_sources_win(tmp_path: Path) -> None:
    text = "[node]\nport = 1\nhost = 'a'\ndrain = 1\n[env.prod.node]\nport = 2\nhost = 'b'\n"
    env = {"HEADRACE_ENV": "prod", "HEADRACE_PORT": "3"}
    found = settings(tmp_path, text, env, host="c", data=None)
    assert (found.drain, found.port, found.host) == (1.0, 3, "c")
    assert found.environment == "prod"


def test_an_environment_section_is_left_alone_unless_it_is_chosen(tmp_path: Path) -> None:
    assert settings(tmp_path, "[env.prod.node]\nport = 2\n").port == 4280


def test_an_override_merges_policies_key_by_key(tmp_path: Path) -> None:
    text = '[functions."shop.price"]\nbatch_size = 7\nretry = { attempts = 3 }\n'
    app = settings(tmp_path, text).apply(shop(retry=Retry(initial_delay=0.5, max_delay=9.0)))
    assert app.functions[0].batch_size == 7
    assert app.functions[0].retry == Retry(attempts=3, initial_delay=0.5, max_delay=9.0)


def test_a_failure_policy_is_chosen_by_its_name(tmp_path: Path) -> None:
    text = '[functions."shop.price"]\non_failure = "park-key"\nbreaker = false\n'
    function = settings(tmp_path, text).apply(shop(on_failure=DeadLetter())).functions[0]
    assert function.on_failure == ParkKey()
    assert function.breaker is None


def test_a_variable_reaches_into_a_function_and_wins_over_the_file(tmp_path: Path) -> None:
    env = {
        "HEADRACE_FUNCTIONS__SHOP_PRICE__RETRY__ATTEMPTS": "9",
        "HEADRACE_FUNCTIONS__SHOP_PRICE__BATCH_WINDOW": "0.5",
        "HEADRACE_STREAMS__ORDERS__RETENTION_AGE": "60",
    }
    text = '[functions."shop.price"]\nretry = { attempts = 3 }\n'
    app = settings(tmp_path, text, env).apply(shop())
    assert app.functions[0].retry.attempts == 9
    assert app.functions[0].batch_window == 0.5
    assert app.streams[0].retention_age == 60.0


def test_an_override_that_is_about_nothing_is_reported_with_a_near_name(tmp_path: Path) -> None:
    found = settings(tmp_path, '[functions."shop.prise"]\nbatch_size = 7\n')
    (sentence,) = found.unmatched([shop()])
    assert "headrace.toml:1" in sentence
    assert "did you mean `shop.price`?" in sentence


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[node]\nprot = 1\n", 2, "did you mean `port`?"),
        ("[node]\n\n# why\nport = 'x'\n", 4, "expected `int`, got `str`"),
        ("[node]\naccess = 'opn'\n", 2, "use `open` or `local` or `token` (did you mean `open`?)"),
        ("[nodes]\nport = 1\n", 1, "`nodes` is unknown in this file"),
        ("node = 3\n", 1, "must be a table"),
        ("[functions.x]\nname = 'y'\n", 2, "cannot be overridden"),
        ("[functions.x]\nbatch_size = 0\n", 2, "use 1 to 10,000"),
        ("[functions.x]\nbatch_size = 'many'\n", 2, "Expected `int`"),
        ("[functions.x]\ntimeout = 1\nretry = { attempts = 0 }\n", 3, "use 1 to 10,000"),
        ("[functions.x]\nretry = { atempts = 3 }\n", 2, "did you mean `attempts`?"),
        (
            "[functions.x.retry]\ninitial_delay = 9.0\nmax_delay = 1.0\n",
            1,
            "use 0 <= initial_delay",
        ),
        ("[functions.x]\non_failure = 'drop'\n", 2, "use `dead-letter` or `park-key` or"),
        ("[functions.x]\non_failure = 'ded-letter'\n", 2, "(did you mean `dead-letter`?)"),
        (
            "[functions.x]\norder = 'keyd'\n",
            2,
            "use `partition` or `key` or `none` (did you mean",
        ),
        ("[functions.x]\ntimeout = 'soon'\n", 2, "write seconds, a text such as"),
        ("[streams.x]\nretention_age = -1\n", 2, "-1 s, which is out of range"),
        ("[streams.x]\nmax_event_bytes = 99999999\n", 2, "use 1 to 8,388,608 bytes"),
        ("[functions.x]\nbatch_window = nan\n", 2, "use 0 to 3,600 seconds"),
        ("[streams.x]\npartitions = 3\n", 2, "cannot be overridden"),
        ("[env.prod]\nport = 3\n", 2, "`port` is unknown in `[env.prod]`"),
    ],
)
def test_what_cannot_be_is_named_with_file_line_and_fix(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    with pytest.raises(Misuse) as error:
        settings(tmp_path, text)
    assert f"headrace.toml:{line}: " in str(error.value)
    assert says in str(error.value)


def test_text_that_is_no_toml_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"headrace\.toml: is not TOML: .*line 2"):
        settings(tmp_path, "[node]\nport = = 1\n")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Misuse, match="is not UTF-8 text"):
        settings(tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("HEADRACE_PROT", "1", "did you mean `HEADRACE_PORT`?"),
        ("HEADRACE_PORT", "many", "`HEADRACE_PORT`: `port = 'many'` cannot be"),
        ("HEADRACE_PORT", "70000", "use 0 (any free one) to 65535"),
        ("HEADRACE_FUNCTIONS__X__NAME", "y", "`HEADRACE_FUNCTIONS__X__NAME`: `name` of function"),
        ("HEADRACE_FUNCTIONS__X__BATCH_SIZE", "many", "`HEADRACE_FUNCTIONS__X__BATCH_SIZE`"),
        ("HEADRACE_DRAIN", "inf", "write seconds, a text such as"),
        ("HEADRACE_FAILPOINT", "commit:nowhere:1", "use `label:passes`"),
        ("HEADRACE_FAILPOINT", "commit:before-fsync", "use `label:passes`"),
        ("HEADRACE_LOG_LEVEL", "loud", "use debug, info, warning or error"),
        ("HEADRACE_ENV", "prod", "there is no such file here"),
        ("HEADRACE_CONFIG", "nowhere.toml", "`nowhere.toml` cannot be read"),
    ],
)
def test_a_variable_that_cannot_be_is_named(
    tmp_path: Path, variable: str, value: str, says: str
) -> None:
    with pytest.raises(Misuse) as error:
        settings(tmp_path, "", {variable: value})
    assert says in str(error.value)


def test_variables_of_others_are_nobodys_business(tmp_path: Path) -> None:
    assert settings(tmp_path, "", {"PATH": "/bin", "HEADRACE_URL": "http://x.test"}).port == 4280


def test_lists_in_variables_are_separated_by_commas(tmp_path: Path) -> None:
    env = {"HEADRACE_TARGETS": "a.py, b.py", "HEADRACE_ALLOWED_HOSTS": "one.test"}
    found = settings(tmp_path, "", env)
    assert found.targets == ("a.py", "b.py")
    assert found.allowed_hosts == ("one.test",)


@pytest.mark.parametrize("service", ["HEADRACE", "HEADRACE_SHOP", "HEADRACE_DATA"])
def test_what_kubernetes_makes_up_for_a_service_is_passed_over(
    service: str, tmp_path: Path
) -> None:
    port = f"{service}_PORT_4280_TCP"
    env = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "4280",
        f"{service}_SERVICE_PORT_HTTP": "4280",
        f"{service}_PORT": "tcp://10.0.0.1:4280",
        port: "tcp://10.0.0.1:4280",
        f"{port}_PROTO": "tcp",
        f"{port}_PORT": "4280",
        f"{port}_ADDR": "10.0.0.1",
    }
    assert settings(tmp_path, env=env) == Settings()
    assert settings(tmp_path, env={**env, "HEADRACE_DRAIN": "3"}).drain == 3


@pytest.mark.parametrize(
    ("variable", "text"),
    [("HEADRACE_PORT", "http://x"), ("HEADRACE_SERVICE", "x"), ("HEADRACE_PORT_HTTP", "80")],
)
def test_what_only_looks_like_it_is_refused(variable: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=variable):
        settings(tmp_path, env={variable: text})


NODE_TEXT = """
[node]
drain = "1m30s"
zygote_age = "1h"
max_body_bytes = "2MiB"
max_memory = "1GB"

[functions."shop.price"]
batch_bytes = "1MiB"
timeout = "5m"
resources = { memory = "256MiB", cpu = "10s" }
breaker = { pause = "1m" }

[streams.orders]
retention_age = "7d"
retention_bytes = "10GB"
"""


def test_durations_and_sizes_of_every_source_become_numbers(tmp_path: Path) -> None:
    env = {
        "HEADRACE_MAX_MEMORY": "2GiB",
        "HEADRACE_FUNCTIONS__SHOP_PRICE__RESOURCES__FILE_SIZE": "64MiB",
        "HEADRACE_STREAMS__ORDERS__MAX_EVENT_BYTES": "4096",
    }
    found = settings(tmp_path, NODE_TEXT, env)
    assert (found.drain, found.zygote_age) == (90, 3_600)
    assert (found.max_body_bytes, found.max_memory) == (2 << 20, 2 << 30)
    app = found.apply(shop())
    (price,), (orders,) = app.functions, app.streams
    assert (price.batch_bytes, price.timeout) == (1 << 20, 300)
    assert price.resources == Resources(memory=256 << 20, cpu=10, file_size=64 << 20)
    assert price.breaker == Breaker(pause=60)
    assert (orders.retention_age, orders.retention_bytes) == (604_800, 10**10)
    assert orders.max_event_bytes == 4_096
    assert b"MiB" not in msgspec.json.encode(app)


@pytest.mark.parametrize("given", ['"64mb"', "-1", "1.5", "[]", "true", "nan", '""', "9" * 30])
@pytest.mark.parametrize(
    "line",
    [
        "[node]\nmax_body_bytes = ",
        "[node]\nmax_memory = ",
        "[functions.x]\nbatch_bytes = ",
        "[functions.x]\nresources.memory = ",
        "[streams.x]\nretention_bytes = ",
        "[streams.x]\nmax_event_bytes = ",
    ],
)
def test_a_wrong_size_is_refused_with_file_line_and_fix(
    tmp_path: Path, line: str, given: str
) -> None:
    with pytest.raises(Misuse, match=r"headrace.toml:2: .*(use|write|got|TOML|expected) "):
        settings(tmp_path, f"{line}{given}\n")


@pytest.mark.parametrize("given", ['"5 minutes"', "-1", "[]", "true", "nan", "inf", '""'])
@pytest.mark.parametrize(
    "line",
    [
        "[node]\ndrain = ",
        "[node]\nzygote_age = ",
        "[functions.x]\ntimeout = ",
        "[functions.x]\nbatch_window = ",
        "[functions.x]\nresources.cpu = ",
        "[functions.x]\nbreaker.pause = ",
        "[functions.x]\nscaling.keep_warm = ",
        "[functions.x]\nretry.max_event_age = ",
        "[streams.x]\nretention_age = ",
        "[streams.x]\ndedupe_window = ",
    ],
)
def test_a_wrong_duration_is_refused_with_file_line_and_fix(
    tmp_path: Path, line: str, given: str
) -> None:
    with pytest.raises(Misuse, match=r"headrace.toml:2: .*(use|write|got|expected) "):
        settings(tmp_path, f"{line}{given}\n")


def test_the_api_has_another_port_than_the_routes_or_none(tmp_path: Path) -> None:
    assert load(environ={}, folder=tmp_path).api_port is None
    found = load(environ={"HEADRACE_API_PORT": "4281"}, folder=tmp_path)
    assert (found.port, found.api_port) == (4280, 4281)
    for wrong, fix in (("4280", "another than `port`"), ("70000", "65535"), ("-1", "65535")):
        with pytest.raises(Misuse, match=fix):
            load(environ={"HEADRACE_API_PORT": wrong}, folder=tmp_path)
