"""What ends a command is said in one line that is true."""

import pytest

from eqcollapse.cli import main
from eqcollapse.runtime.errors import EqcollapseError, printable


@pytest.fixture
def ended(tmp_path, monkeypatch, capsys):
    """Run a command that ends with an error before its arguments are parsed; return its exit code and last words."""

    def ended(error, *arguments):
        def raises():
            raise error

        monkeypatch.setattr(main, "new_parser", raises)
        return main.main(list(arguments)), capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    return ended


def test_an_interrupted_cell_goes_on_only_where_an_epoch_is_kept(ended, tmp_path):
    command = ("train", "--digest", "0123456789", "--outputs", "x")
    anew = (130, "eqcollapse train: interrupted; no epoch is kept, so the same command begins anew\n")
    assert ended(KeyboardInterrupt(), *command) == anew
    checkpoint = tmp_path / ".cache/checkpoints/0123456789.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.with_name("9876543210.pt").touch()
    assert ended(KeyboardInterrupt(), *command) == anew
    checkpoint.touch()
    assert ended(KeyboardInterrupt(), *command) == (
        130,
        "eqcollapse train: interrupted; the same command goes on from here\n",
    )


@pytest.mark.parametrize("command", ["check", "hash", "theory"])
def test_what_keeps_nothing_promises_nothing(ended, command):
    assert ended(KeyboardInterrupt(), command) == (130, f"eqcollapse {command}: interrupted\n")


def test_names_from_files_cannot_write_on_the_terminal(ended):
    assert ended(EqcollapseError("a\x1b[2J\u202e\udcff is no file\nb: nor is c"), "check") == (
        1,
        "eqcollapse check: a\\x1b[2J\\u202e\\udcff is no file\nb: nor is c\n",
    )


def test_printable_text_is_left_alone():
    assert printable("Zürich 日本 \U0001f600 'x'") == "Zürich 日本 \U0001f600 'x'"
    assert printable("a\nb\x00") == "a\\nb\\x00"
