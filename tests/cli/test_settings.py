"""`bridge settings`, and the options that the commands have of the settings."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from bridge.cli import main
from bridge.cli.options import GATEWAY, MATRIX, SECRETS, SETTINGS, WORKER, flag
from bridge.settings import Settings, default_text, env_name, file_name


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in SETTINGS.values():
        for name in (env_name(one), file_name(one), *one.metadata["also"]):
            monkeypatch.delenv(name, raising=False)


def options(command: str) -> dict[str, click.Option]:
    """A command's options by their long names."""
    found = main.get_command(click.Context(main), command)
    assert found is not None
    return {one.opts[0]: one for one in found.params if isinstance(one, click.Option)}


def test_every_setting_is_an_option_of_some_command() -> None:
    """No setting can be given in the environment only, but secrets, which a command line would show to
    everybody on the machine; `gateway_url` is `--gateway` where it is used.
    """
    assert {*WORKER, *GATEWAY, *MATRIX, *SECRETS} == set(SETTINGS) - {"gateway_url"}
    assert not {*WORKER, *GATEWAY, *MATRIX} & set(SECRETS)
    assert {"ticket_keys", "jwt_keys"} <= set(SECRETS)


@pytest.mark.parametrize(
    ("command", "names"), [("serve", GATEWAY), ("run", WORKER), ("publish", WORKER), ("matrix", MATRIX)]
)
def test_options_are_made_from_the_settings(command: str, names: tuple[str, ...]) -> None:
    """Help, default and variables of an option are those of its setting."""
    found = options(command)
    for name in names:
        one, option = SETTINGS[name], found[flag(SETTINGS[name])]
        assert option.help is not None
        assert option.help.startswith(one.metadata["help"])
        assert env_name(one) in option.help
        assert f"default: {default_text(one) or 'none'}]" in option.help
        assert option.default is None


def test_a_switch_has_an_option_for_each_side() -> None:
    """What a variable turns on, a flag can turn off; without either the variable counts."""
    page = options("serve")["--page"]
    assert (page.opts, page.secondary_opts) == (["--page"], ["--no-page"])
    serve = main.get_command(click.Context(main), "serve")
    assert serve is not None
    for arguments, value in ([], None), (["--page"], True), (["--no-page"], False):
        assert serve.make_context("serve", list(arguments)).params["page"] is value


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "many"], "'many' is not a valid integer"),
        (["serve", "--port", "70000"], "--port must be at most 65535"),
        (
            ["serve", "--cors-origins", "app.example"],
            "--cors-origins must hold origins as browsers send them",
        ),
        (["run", "--lease-seconds", "0", "--", "true"], "--lease-seconds must be at least 0.5"),
        (["publish", "job", "--redis-url", "http://here"], "redis_url can't be used"),
    ],
)
def test_wrong_values_are_named(arguments: list[str], said: str) -> None:
    """A value that doesn't fit is refused with exit code 2 and the option's name."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_settings_says_value_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is a line: its name, its value, and the variable that it comes from or `default`."""
    monkeypatch.setenv("BRIDGE_HEARTBEAT_SECONDS", "7")
    monkeypatch.setenv("REDIS_URL", "redis://me:secret@cache:6379/1")
    result = CliRunner().invoke(main, ["settings"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert list(lines) == list(SETTINGS)
    assert lines["heartbeat_seconds"] == ["7.0", "BRIDGE_HEARTBEAT_SECONDS"]
    assert lines["redis_url"] == ["redis://***@cache:6379/1", "REDIS_URL"]
    assert lines["port"] == ["8620", "default"]
    assert "secret" not in result.output


def test_settings_as_json() -> None:
    """`--json` is one object with every setting's value and source."""
    result = CliRunner().invoke(main, ["settings", "--json"])
    table = json.loads(result.stdout)
    assert table["port"] == {"value": Settings().port, "source": "default"}
    assert list(table) == list(SETTINGS)
