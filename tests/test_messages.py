"""Sentences of errors, whatever they quote: short, in a moment, and harmless to a terminal."""

from knet.errors import KNetError, readable


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
