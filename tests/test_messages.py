"""Sentences of errors, whatever they quote: short, in a moment, and harmless to a terminal."""

import logging

import pytest

from knet.cli.main import lines_shown, main
from knet.errors import KNetError, did_you_mean, readable


def test_a_word_without_an_end_is_shortened_at_once() -> None:
    # Addresses were searched for in a time that grew with the square of a word: minutes for a key of a config.
    for endless in ("x" * 10**6, "a.b+" * 10**5, "x://'" * 10**5, "://" * 10**5, "a" * 10**5 + ":/" * 10**5):
        said = readable(f"The key '{endless}' is unknown; leave it out.")
        assert said.startswith("The key") and said.endswith("leave it out.") and len(said) < 2100


def test_a_long_line_shows_no_half_of_an_address() -> None:
    for before in range(9_960, 10_010):
        said = readable(f"{'y ' * (before // 2)}{'z' * (before % 2)} rtsp://me:secret@camera/live {'y ' * 20_000}end")
        assert "secret" not in said and said.endswith("end")


def test_control_characters_are_written_out() -> None:
    assert (
        str(KNetError("the name 'a\x1b[2J\x07\u202eb'\nand more")) == r"the name 'a\x1b[2J\x07\u202eb'" + "\nand more"
    )


def test_lines_that_the_package_says_are_harmless_too(capsys: pytest.CaptureFixture[str]) -> None:
    with lines_shown(json=False):
        logging.getLogger("knet").warning("the class 'a\x1b[2J' counts as stuff")
        logging.getLogger("knet").info("weights: https://host/owner/page, licence\n  of it")
    said = capsys.readouterr()
    assert "\x1b" not in said.err and r"'a\x1b[2J'" in said.err
    assert said.out == "weights: https://host/owner/page, licence\n  of it\n"  # whole, as it is no secret


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("conf", ["size", "score", "overlap"], "did you mean 'score'?"),
        ("imgsz", ["size", "score"], "did you mean 'size'?"),
        ("imgsz", ["short_edge", "iterations"], "did you mean 'short_edge'?"),
        ("lr0", ["optimizer", "iterations"], "did you mean 'optimizer.learning_rate'?"),
        ("epochs", ["optimizer", "iterations"], "did you mean 'iterations'?"),
        ("scor", ["size", "score"], "did you mean 'score'?"),
        ("conf", ["colour"], "there is none"),
    ],
)
def test_names_that_other_programs_use_are_understood(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known, "there is none") == hint


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("predict m a.jpg --conf 0.5", "unrecognized arguments: --conf 0.5; did you mean '--score'?"),
        ("predict m a.jpg --imgsz=640", "did you mean '--size'?"),
        ("predict m a.jpg --ouput x", "did you mean '--output'?"),
        ("data import own --output x --vall 0.2 --seeds 3", "did you mean '--val'?"),
        ("predict m a.jpg --zzz", "unrecognized arguments: --zzz\n"),
        ("train custom --qqq 3", "unrecognized arguments: --qqq 3\n"),
    ],
)
def test_an_unknown_option_of_the_command_line(command: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code == 2 and hint in capsys.readouterr().err
