"""knet demo: the bundled model on the bundled street images, with a web page of the results."""

import argparse
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from knet.cli.options import add_verb

MODEL = "rtknet-lite-street"
NOTE = (
    "The model's weights are for non-commercial use, as is the data that they learned from. In training it saw the "
    "pictures of city and suburb and every fifth frame of the video, labelled by other networks; the rest it never saw."
)


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    summary = "segment the street images that come with the package, and make a web page of the results"
    parser = add_verb(verbs, "demo", summary, "knet demo")
    folder = "folder for the results (default: demo-results)"
    parser.add_argument("--output", default="demo-results", metavar="DIR", help=folder)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes overlays, panoptic PNGs, a video and index.html, and prints where they are."""
    from tqdm import tqdm

    from knet.files import atomic_path
    from knet.inference.load import load
    from knet.inference.results.page import Row, write_index
    from knet.inference.results.writers import ResultWriter
    from knet.inference.segmenter import VideoState
    from knet.inference.sources.paths import open_source

    output, segmenter, rows = Path(args.output), load(MODEL), []
    with resources.as_file(resources.files("knet") / "assets" / "demo") as examples:
        with ResultWriter(output, ["overlay", "panoptic", "json"], segmenter.categories) as writer:
            for item in open_source(examples):
                result = segmenter.segment(item.image, item.name)
                overlay, *_ = writer.write(result, item.image, path=item.path)
                picture = output / f"{item.name}.jpg"
                with atomic_path(picture) as temporary:
                    shutil.copyfile(str(item.path), temporary)
                rows.append(Row(item.name, picture, overlay, result.segments, item.image.shape[:2]))
                found = ", ".join(sorted({segment.name for segment in result.segments}))
                print(f"{item.name}: {len(result.segments)} segments ({found})")
        with ResultWriter(output, ["video"], segmenter.categories) as writer:
            state = VideoState()
            for number, item in enumerate(
                tqdm(open_source(examples / "drive.mp4"), desc="drive.mp4", unit="frame", disable=None)
            ):
                result, state = segmenter.segment_next(item.image, state, number, item.name)
                writer.write(result, item.image, video=item.video)
    video = output / "drive_overlay.mp4"
    page = write_index(output, f"knet: {MODEL}", rows, segmenter.categories, NOTE, [video])
    print(f"video, with objects numbered from frame to frame: {video}")
    print(f"results are in {output.resolve()}: open {page.resolve()}")
    return 0
