"""knet demo: the bundled model on the bundled street images, with a page to look at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from knet.cli.options import add_verb

MODEL = "rtknet-slim-camvid"


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs, "demo", "segment the street images that come with the package and make a page of them", "knet demo"
    )
    parser.add_argument("--output", default="demo-results", metavar="DIR", help="folder (default: demo-results)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes overlays, panoptic PNGs and index.html, and says where."""
    from importlib import resources

    from PIL import Image
    from tqdm import tqdm

    from knet.files import atomic_path
    from knet.inference.load import load
    from knet.inference.page import Row, write_index
    from knet.inference.sources import open_source
    from knet.inference.writers import ResultWriter

    output = Path(args.output)
    segmenter = load(MODEL)
    rows = []
    with resources.as_file(resources.files("knet") / "assets" / "images") as images:
        items = list(open_source(images))
        with ResultWriter(output, ["overlay", "panoptic", "json"], segmenter.categories) as writer:
            for item in tqdm(items, desc="demo", unit="image", disable=None):
                result = segmenter.segment(item.image, item.name)
                overlay = next(p for p in writer.write(result, item.image, path=item.path) if "overlay" in p.name)
                picture = output / f"{item.name}.jpg"
                with atomic_path(picture) as temporary:
                    Image.fromarray(item.image).save(temporary, quality=92)
                rows.append(Row(item.name, picture, overlay, result.segments, result.id_map.shape))
                found = ", ".join(sorted({segment.name for segment in result.segments}))
                print(f"{item.name}: {len(result.segments)} segments ({found})")
    page = write_index(output, f"knet: {MODEL}", rows, segmenter.categories)
    print(f"results in {output.resolve()}; open {page.resolve()}")
    return 0
