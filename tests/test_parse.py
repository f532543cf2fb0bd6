"""JSON and YAML of others: whatever stands in them is a value or one short sentence."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import knet.parse
from knet.config import load_config, read_overrides
from knet.data.categories import load_table
from knet.data.files.io import read_json
from knet.data.make.same_classes import read_renames
from knet.data.readers.mots import read_mots
from knet.data.readers.vipseg import read_video_list
from knet.errors import DataError, KNetError, shown
from knet.parse import ParseError, parse_json, parse_yaml, read_lines

LETTERS = "abcdefghij"


def bomb(item: str = "[{}]", first: str = "[lol, lol]") -> str:
    """Ten lines, of which each has nine times what the line before has."""
    lines = [f"a: &a {first}"]
    lines += [f"{b}: &{b} {item.format(', '.join([f'*{a}'] * 9))}" for a, b in pairwise(LETTERS)]
    return "\n".join(lines)


BAD_YAML = {
    "aliases that repeat too much": bomb(),
    "merged tables that repeat too much": bomb("{{<<: [{}]}}", "{k: 1}"),
    "a list that holds itself": "a: &a [*a]",
    "a date that is none": "2001-99-99",
    "a time zone that is none": "2001-01-01 00:00:00 +99:99",
    "an empty number": "!!int ''",
    "an empty float": "!!float ''",
    "a truth that is neither": "!!bool x",
    "a time that is none": "!!timestamp x",
    "brackets": "[" * 500,
    "closed brackets": "[" * 500 + "]" * 500,
    "many digits": "9" * 5000,
    "some digits less": "9" * 4300,
    "many hexadecimal digits": "0x" + "f" * 5000,
    "an object": "!!python/object:os.system {}",
    "no text": "\x00",
}
BAD_JSON = {
    "brackets": b"[" * 500,
    "closed brackets": b"[" * 500 + b"]" * 500,
    "very many brackets": b"[" * 100_000,
    "brackets beside half a pair": b'["\\ud800",' + b"[" * 100_000,
    "many digits": b"9" * 5000,
    "some digits less": b"9" * 4300,
    "digits in UTF-16": ("[" + "9" * 4300 + "]").encode("utf-16"),
    "half": b'{"a": ',
    "no text": b"\xff\x00\xff",
}
READERS: dict[str, Callable[[Path], Any]] = {
    "config": load_config,
    "class table": load_table,
    "renames": lambda path: read_renames([str(path)]),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", BAD_YAML.values(), ids=BAD_YAML)
def test_no_yaml_of_others_ends_in_more_than_a_sentence(text: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(KNetError, match=r"a\.yaml") as error:
        READERS[reader](path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("text", BAD_YAML.values(), ids=BAD_YAML)
def test_no_value_of_an_option_ends_in_more_than_a_sentence(text: str) -> None:
    with pytest.raises(KNetError, match="cannot be read") as error:
        read_overrides([f"batch={text}"])
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON)
def test_no_json_of_others_ends_in_more_than_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (read_json, load_table):
        with pytest.raises(KNetError, match=r"a\.json") as error:
            read(path)
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize("read", [load_config, load_table, lambda path: read_json(Path(path))])
def test_a_name_that_no_file_can_have(read: Callable[[str], Any]) -> None:
    with pytest.raises(KNetError):
        read("a\0b.yaml")


def test_files_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knet.parse, "_LARGEST_STREAM", 1000)
    long = tmp_path / "long.yaml"
    long.write_text("#" * (2**20 + 1))
    for path in (long, Path("/dev/zero")):  # the latter has no end
        with pytest.raises(KNetError, match=r"more than .* bytes"):
            load_config(path)


def test_a_value_of_a_file_is_quoted_shortly(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for wrong in ("x" * 10_000, ["y" * 50] * 1000, {str(n): [n] * 100 for n in range(1000)}, 10**140):
        path.write_text(json.dumps({"categories": [wrong]}))
        with pytest.raises(KNetError, match="categories") as error:
            load_table(path)
        path.write_text(json.dumps({"categories": [{"id": 1, "name": "a", "thing": wrong}]}))
        with pytest.raises(KNetError, match="thing =") as other:
            load_table(path)
        assert len(str(error.value)) < 400 and len(str(other.value)) < 400


def test_whatever_is_wrong_can_be_shown() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (Mute(), deep, 10**5000, "a" * 10**6, [[["b" * 100] * 100] * 100] * 100):
        assert len(shown(value)) < 150
    assert shown([0.5, "a"]) == "[0.5, 'a']"


@pytest.mark.parametrize("digits", [r"\ud83d\ude00", r"\udcff", r"\\ud800"])
def test_texts_that_python_writes_are_read_again(digits: str) -> None:
    text = f'["{digits}"]'
    assert parse_json(text) == json.loads(text)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(), st.lists, max_leaves=5))
@settings(max_examples=50, deadline=None)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert parse_json(json.dumps(value).encode(encoding)) == value


@given(st.text(alphabet="ab&*:![]{}<>-?,'\"|#%\n 019.", max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_yaml_is_a_value_or_one_error(text: str) -> None:
    try:
        repr(parse_yaml(text))
    except ParseError as error:
        assert str(error)


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text("[1]")
    code = (
        "import resource, sys; from pathlib import Path; from knet.data.files.io import read_json\n"
        "size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + 2**28\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "assert read_json(Path(sys.argv[1])) == [1]"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "small.json"], capture_output=True, check=False)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("text", ["batch: 010", "batch: -0_7", "start: 1:30", "x: [190:20:30.15]", "a: {b: +1:00}"])
def test_numbers_that_yaml_reads_in_another_base_are_refused(text: str) -> None:
    """010 would be 8, and 1:30 would be 90."""
    with pytest.raises(ParseError, match=r"which YAML reads in base 8 or 60: write it plainly or in quotes"):
        parse_yaml(text)
    assert parse_yaml("[0, -0, 0.5, 007.5, 0x1f, 1_000, '010', '1:30', 2001-01-01 10:00:00]")


@pytest.mark.parametrize("text", ["a: 1\na: 2", "{x: {b: 1, 'b': 2}}", "- {1: a, 1: b}", "<<: {a: 1}\n<<: {b: 2}"])
def test_a_key_that_is_there_twice_is_refused(text: str) -> None:
    """The first would be forgotten without a word."""
    with pytest.raises(ParseError, match=r"it has the key '.+' twice in one table"):
        parse_yaml(text)
    assert parse_yaml("{a: &x {a: 1}, b: {<<: *x, a: 2}}") == {"a": {"a": 1}, "b": {"a": 2}}


def test_lines_of_texts_of_others(tmp_path: Path) -> None:
    path, text = tmp_path / "list.txt", "one\r\ntwo ü\n"
    for data in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        path.write_bytes(data)
        assert read_lines(path) == ["one", "two ü"]
    path.write_bytes(b"\xff\xfa\x80")
    with pytest.raises(ParseError, match="no text in UTF-8 or UTF-16"):
        read_lines(path)
    with pytest.raises(ParseError, match="more than"):
        read_lines(Path("/dev/zero"))
    for read in (read_mots, read_video_list):
        with pytest.raises(DataError, match="/dev/zero cannot be read"):
            read(Path("/dev/zero"))
