"""Settings and variables on a real node: three ways to give them, what is refused, what is passed on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.integration.app_folders import command, write

from headrace.environment.clock import SystemClock
from headrace.testing import serving

APP = """
import os
from headrace import App, Context

shop = App("shop", env=["OURS_*"])
rate = shop.setting("RATE", float, default=1.0)
at_import = rate.value
hosts = shop.setting("HOSTS", list[str], default=[])


@shop.function()
def tell(event, context: Context):
    return {
        "rate": rate.value, "at_import": at_import, "hosts": hosts.value,
        "ours": os.environ.get("OURS_KEY"), "theirs": os.environ.get("THEIRS_KEY"),
        "held": [name for name in os.environ if "HEADRACE" in name],
    }


@shop.function()
def lack(event, context: Context):
    return os.environ["THEIRS_KEY"]
"""


def test_an_app_runs_with_what_it_was_given_and_sees_what_it_named(tmp_path: Path) -> None:
    app = write(tmp_path, APP, "[apps.shop.settings]\nRATE = 2\nHOSTS = ['a']\n")
    environ = {"HEADRACE_APP_SHOP_RATE": "3.5", "OURS_KEY": "yes", "THEIRS_KEY": "no"}
    with serving(app, tmp_path / "data", environ=environ) as node:
        told = node.ask("POST", "/-/v1/functions/shop.tell", {}).body
        assert told == {
            "rate": 3.5,
            "at_import": 3.5,
            "hosts": ["a"],
            "ours": "yes",
            "theirs": None,
            "held": [],
        }
        failed = node.ask("POST", "/-/v1/functions/shop.lack", {})
        assert failed.status == 500
        assert 'env=["THEIRS_KEY"]' in failed.body["detail"]
        rows = node.ask("GET", "/-/v1/map").body["map"]
        assert rows[0]["settings"] == [
            "setting `shop.RATE` (float): from `HEADRACE_APP_SHOP_RATE`",
            "setting `shop.HOSTS` (list[str]): from headrace.toml:3",
        ]


def test_the_command_line_wins_and_validate_imports_as_a_node_does(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import os
        from headrace import App
        shop = App("shop", env=["OURS_KEY"])
        rate = shop.setting("RATE", int)
        if rate.value != 4 or "THEIRS_KEY" in os.environ:
            raise RuntimeError(f"{rate.value}, {sorted(os.environ)}")
        key = os.environ["OURS_KEY"]
        """,
        "[apps.shop.settings]\nRATE = 2\n[env.test.apps.shop.settings]\nRATE = 5\n",
    )
    environ = {
        "HEADRACE_ENV": "test",
        "HEADRACE_APP_SHOP_RATE": "3",
        "OURS_KEY": "1",
        "THEIRS_KEY": "2",
    }
    done = command(tmp_path, "validate", "app.py", "--set", "shop.RATE=4", environ=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "setting `shop.RATE` (int): from `--set shop.RATE=4`" in done.stdout
    del environ["OURS_KEY"]
    done = command(tmp_path, "validate", "app.py", "--set", "shop.RATE=4", environ=environ)
    assert done.returncode == 1
    assert "KeyError: `os.environ` has no `OURS_KEY`" in done.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("", "`URL` (str), which has no value"),
        ("[apps.shop.settings]\nURL = 3\n", "headrace.toml:2: `3` cannot be"),
        ("[apps.shop.settings]\nURL = 'u'\nRATE = 1\n", "headrace.toml:3: no app declares"),
        ("[apps.shop.setting]\nURL = 'u'\n", "`setting` is unknown in `[apps.shop]`"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_by_name(
    tmp_path: Path, settings: str, told: str
) -> None:
    code = 'from headrace import App\nshop = App("shop")\nurl = shop.setting("URL", str)\n'
    write(tmp_path, code, settings)
    served = command(tmp_path, "serve", "app.py", "--port", "0")
    checked = command(tmp_path, "validate", "app.py")
    assert (served.returncode, checked.returncode) == (1, 1)
    assert told in served.stderr
    assert told in checked.stdout + checked.stderr


def test_validate_warns_of_a_watched_folder_that_is_not_there(tmp_path: Path) -> None:
    code = """
        from headrace import App, Files
        shop = App("shop")

        @shop.function(Files("inbox"))
        def note(event): ...
    """
    write(tmp_path, code)
    done = command(tmp_path, "validate", "app.py")
    assert done.returncode == 0
    assert f"there is no folder `{tmp_path / 'inbox'}` (`inbox`, from the folder" in done.stdout


def test_an_import_that_lacks_a_variable_says_what_to_write(tmp_path: Path) -> None:
    code = 'import os\nfrom headrace import App\nshop = App("shop")\nKEY = os.environ["KEY"]\n'
    write(tmp_path, code)
    done = command(tmp_path, "serve", "app.py", "--port", "0", environ={"KEY": "1"})
    assert done.returncode == 1
    assert 'App(..., env=["KEY"])' in done.stderr
    assert 'app.py", line 4' in done.stderr


def test_variables_can_be_set_in_the_app(tmp_path: Path) -> None:
    app = write(
        tmp_path,
        """
        import os, time
        from headrace import App
        shop = App("shop", env={"TZ": "Asia/Kolkata", "MODE": "fast"})
        @shop.function()
        def tell(event):
            return [os.environ["MODE"], time.strftime("%z")]
        """,
    )
    with serving(app, tmp_path / "data", environ={"MODE": "slow"}) as node:
        assert node.ask("POST", "/-/v1/functions/shop.tell", {}).body == ["fast", "+0530"]


def test_the_map_of_code_alone_knows_the_settings_too(tmp_path: Path) -> None:
    write(tmp_path, APP, "[apps.shop.settings]\nRATE = 2\n")
    done = command(tmp_path, "map", "app.py")
    assert "setting `shop.RATE` (float): from headrace.toml:2" in done.stdout
    rows = json.loads(command(tmp_path, "map", "app.py", "--json").stdout)
    assert len(rows[0]["settings"]) == 2


def test_a_setting_that_changes_under_dev_is_in_force_after_the_reload(tmp_path: Path) -> None:
    app = write(tmp_path, APP, "[node]\nreload = true\n[apps.shop.settings]\nRATE = 2\n")
    with serving(app, tmp_path.parent / f"{tmp_path.name}-data") as node:
        assert node.ask("POST", "/-/v1/functions/shop.tell", {}).body["at_import"] == 2.0
        settings = "[node]\nreload = true\n[apps.shop.settings]\nRATE = 7\n"
        (tmp_path / "headrace.toml").write_text(settings)
        clock = SystemClock()
        end = clock.monotonic() + 20
        while node.ask("POST", "/-/v1/functions/shop.tell", {}).body.get("at_import") != 7.0:
            assert clock.monotonic() < end, "the new setting never came"


def test_an_app_that_is_made_in_a_process_the_import_forks_does_not_disturb_the_node(
    tmp_path: Path,
) -> None:
    code = """
    import os
    from headrace import App
    if (pid := os.fork()) == 0:
        for number in range(100):
            App(f"inner{number}", env=["TZ"])
        os._exit(0)
    os.waitpid(pid, 0)
    shop = App("shop")
    rate = shop.setting("RATE", int)
    @shop.function()
    def tell(event):
        return rate.value
    """
    app = write(tmp_path, code)
    with serving(app, tmp_path / "data", environ={"HEADRACE_APP_SHOP_RATE": "4"}) as node:
        assert node.ask("POST", "/-/v1/functions/shop.tell", {}).body == 4
