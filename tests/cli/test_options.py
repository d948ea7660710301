"""The options of a command are made from the configuration's fields, and give it back."""

import pytest
import typer
from typer.testing import CliRunner

from retake_edge.cli import app as main_app
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.config import RetakeConfig, all_settings
from retake_edge.errors import ConfigError


def asked(*arguments, env=None):
    """What a command that opens videos is handed for these arguments."""
    found, app = [], typer.Typer()

    @app.command()
    @opens_video
    def command(*, request: CliRequest) -> None:
        found.append(request)

    done = CliRunner().invoke(app, list(arguments), env=env, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return found[0]


def other(one):
    """Another value than the default, as a text and as it is."""
    if one.choices:
        value = next(choice for choice in one.choices if choice != one.default)
    elif one.kind is bool:
        return (), not one.default
    elif one.kind is str:
        value = "root ::= [a-z]+"
    else:
        value = one.kind(1 if one.default in (None, 0) else one.default / 2)
        value = one.kind(64) if one.flag in ("-c", "--long-side") else value
    return (f"{value:g}" if one.kind is float else str(value),), value


SETTINGS = {path: one for path, one in all_settings().items() if one.flags}


def test_without_options_the_configuration_is_the_default():
    assert asked().config == RetakeConfig() and asked().given == frozenset()


@pytest.mark.parametrize("path", SETTINGS)
def test_each_flag_sets_its_field(path):
    one = SETTINGS[path]
    words, value = other(one)
    for flag in one.flags:
        flag = f"--no-{flag.lstrip('-')}" if one.kind is bool and one.default else flag
        request = asked(flag, *words)
        expected = RetakeConfig.from_paths({path: value})
        assert request.config == expected != RetakeConfig()
        assert request.given == {path}
        if flag == one.flag:
            assert one.written(value) == " ".join((flag, *words))


@pytest.mark.parametrize("path", [path for path, one in SETTINGS.items() if one.env])
def test_a_variable_of_llama_cpp_sets_its_field_and_a_flag_goes_before(path):
    one = SETTINGS[path]
    words, value = other(one)
    env = {f"LLAMA_ARG_{one.env}": words[0] if words else str(value).lower()}
    request = asked(env=env)
    assert request.config == RetakeConfig.from_paths({path: value}) and not request.given
    if words and one.default is not None:
        assert asked(one.flag, str(one.default), env=env).config == RetakeConfig()


@pytest.mark.parametrize("text", ["90", "1:30", "0:01:30"])
def test_times_are_seconds_or_clock_times(text):
    request = asked("--start", text, "--end", "1:40")
    assert (request.config.sampling.start_s, request.config.sampling.end_s) == (90, 100)


@pytest.mark.parametrize("path", [path for path, one in SETTINGS.items() if one.range])
def test_a_value_out_of_range_is_refused_by_its_flag(path):
    one = SETTINGS[path]
    wrong = one.range.low - 1 if one.range.low > -float("inf") else float("nan")
    with pytest.raises(ConfigError, match=f"^{one.flag} is "):
        asked(one.flag, f"{wrong:g}")


@pytest.mark.parametrize(
    ("path", "word"),
    [(path, word) for path, one in SETTINGS.items() for word in one.llama_defaults],
)
def test_what_llama_cpp_takes_for_its_default_is_ours(path, word):
    one = SETTINGS[path]
    assert asked(one.flag, word).config == RetakeConfig()
    by_variable = asked(env={f"LLAMA_ARG_{one.env}": word})
    assert by_variable.config == RetakeConfig() and by_variable.given == frozenset()


@pytest.mark.parametrize("path", [path for path, one in SETTINGS.items() if one.llama_defaults])
def test_another_word_is_refused_by_its_flag(path):
    one = SETTINGS[path]
    with pytest.raises(ConfigError, match=f"{one.flag} is 'many', but it must be a whole number"):
        asked(one.flag, "many")


def test_a_server_cannot_fit_settings_to_each_video(monkeypatch):
    monkeypatch.setattr("retake_edge.server.app.run", lambda *_: None)
    done = CliRunner().invoke(main_app, ["serve", "-m", "tiny", "--fit"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("--fit changes settings by video")
