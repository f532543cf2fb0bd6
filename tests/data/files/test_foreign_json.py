"""JSON as other systems write it: byte order marks, Windows' separators, numbers of other kinds, and no JSON at all."""

from __future__ import annotations

import codecs
import gzip
import json
import zipfile
from pathlib import Path

import pytest
from tiny_panoptic import TinyPanoptic

from knet.data.categories import load_categories
from knet.data.files.io import list_images, read_json
from knet.data.files.numbers import flag, id_key, whole
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.readers.mots import read_mots
from knet.data.readers.vipseg import read_video_list
from knet.errors import ConfigError, DataError

MARKS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


@pytest.mark.parametrize("encoding", MARKS)
def test_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(MARKS[encoding] + '{"a": "ä"}'.encode(encoding))
    assert read_json(path) == {"a": "ä"}
    table = tmp_path / "table.json"
    rows = '{"categories": [{"id": "1", "name": "a", "thing": 1.0}]}'
    table.write_bytes(MARKS[encoding] + rows.encode(encoding))
    assert [(c.id, c.thing) for c in load_categories(table)] == [(1, True)]
    yaml = tmp_path / "table.yaml"
    yaml.write_bytes(MARKS[encoding] + "categories: [{id: 1, name: a, thing: true}]".encode(encoding))
    assert load_categories(yaml) == load_categories(table)


def test_texts_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + b"one\r\ntwo\r\n")
    assert read_video_list(tmp_path / "a.txt") == ["one", "two"]
    (tmp_path / "b.txt").write_bytes(codecs.BOM_UTF8 + b"0 1 2 1 4 4\r\n")
    assert read_mots(tmp_path / "b.txt")[0].frame == 0


def test_an_archive_is_no_json(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.json", "{}")
    with gzip.open(tmp_path / "a.json.gz", "w") as file:
        file.write(b"{}")
    for name, what in (("a.zip", "it is a zip file"), ("a.json.gz", "it is a gzip file")):
        with pytest.raises(DataError, match=f"{what}: unpack it"):
            read_json(tmp_path / name)
    for content, what in ((b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"), (b" \n", "empty")):
        (tmp_path / "b.json").write_bytes(content)
        with pytest.raises(DataError, match=f"it is {what}"):
            read_json(tmp_path / "b.json")
    (tmp_path / "a.zip").rename(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="it is a zip file: unpack it"):
        load_categories(tmp_path / "a.json")
    with pytest.raises(DataError, match="is a file, where a folder of images is wanted; unpack it"):
        list_images(tmp_path / "a.json")


def test_a_panoptic_json_of_another_system(tiny: TinyPanoptic) -> None:
    for row in tiny.content["images"]:
        row |= {"id": float(row["id"]), "height": float(row["height"]), "width": str(row["width"])}
    for row in tiny.content["annotations"]:
        row |= {"image_id": str(row["image_id"]), "file_name": f".\\{row['file_name'].removesuffix('.png')}"}
        for segment in row["segments_info"]:
            segment |= {"id": str(segment["id"]), "iscrowd": str(segment["iscrowd"])}
            segment |= {"category_id": float(segment["category_id"])}
    for category in tiny.content["categories"]:
        category |= {"id": str(category["id"]), "isthing": str(category["isthing"])}
    path = tiny.json
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(tiny.content).encode())
    reader = CocoPanoptic(tiny.images, path, tiny.masks)
    assert [(c.id, c.thing) for c in reader.categories] == [(3, False), (8, True)]
    assert [segment.crowd for segment in reader.read(0).segments] == [False, False, False, True]


@pytest.mark.parametrize(("value", "number"), [(1, 1), (1.0, 1), ("1", 1), (" 1", 1), ("-2", -2), ("01", 1)])
def test_whole_numbers(value: object, number: int) -> None:
    assert whole(value) == number


@pytest.mark.parametrize("value", [1.5, "1.5", "one", "", None, True, float("nan"), float("inf"), [1], {}, "²"])
def test_no_whole_numbers(value: object) -> None:
    assert whole(value) is None


def test_flags() -> None:
    assert [flag(value) for value in (0, 1, "0", "1", False, True, 1.0, "true", "False")] == [
        *(False, True, False, True, False, True, True, True, False)
    ]
    assert [flag(value) for value in (2, "yes", None, 0.5, [])] == [None] * 5


def test_ids_are_told_apart_where_the_file_does() -> None:
    same = id_key([1, 2])
    assert same("1") == same(1.0) == same("001") == same(1)
    apart = id_key([1, "1"])
    assert apart("1") != apart(1) and apart(None) is None
