"""knet demo: a web page of what the bundled model makes of the bundled street images, or one to try models on."""

import argparse
import shutil
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from knet.cli.options import add_device, add_threads, add_verb
from knet.cli.stopping import Terminated
from knet.errors import ConfigError, counted

MODEL = "rtknet-lite-street"
NOTE = (
    "The model's weights are for non-commercial use, as is the data that they learned from. In training it saw the "
    "pictures of city and suburb and every fifth frame of the video, labelled by other networks; the rest it never saw."
)


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    summary = "segment the street images that come with the package, and make a web page of the results"
    parser = add_verb(verbs, "demo", summary, "knet demo\n  knet demo --serve")
    offered = "with --serve, names or files of models that the page offers beside those at hand"
    parser.add_argument("models", nargs="*", metavar="MODEL", help=offered)
    folder = "folder for the results (default: demo-results)"
    parser.add_argument("--output", metavar="DIR", help=folder)
    page = "serve a page to try models on images and short videos of your own (needs the extra demo: gradio)"
    parser.add_argument("--serve", action="store_true", help=page)
    host = "with --serve, the address to listen on (default: 127.0.0.1, which only this machine reaches)"
    parser.add_argument("--host", metavar="ADDRESS", help=host)
    port = "with --serve, the port (default: the first from 7860 on that is free)"
    parser.add_argument("--port", type=int, metavar="N", help=port)
    add_device(parser)
    add_threads(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves the page, or writes results and index.html."""
    if args.serve:
        _refuse({"--output": args.output}, "is for the page that is written; leave it or --serve out.")
        return _serve(args)
    of_page = {"MODEL": args.models or None, "--host": args.host, "--port": args.port}
    _refuse(of_page, "is for the page that is served; add --serve, or leave it out.")
    return _write(args)


def _refuse(given: dict[str, Any], sentence: str) -> None:
    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"{option} {sentence}")


def _serve(args: argparse.Namespace) -> int:
    """Serves the page until it is stopped; Ctrl-C is how it ends."""
    from knet.apps.serve import serve

    try:
        serve(args.models, args.host or "127.0.0.1", args.port, device=args.device, threads=args.threads)
    except Terminated:
        raise
    except KeyboardInterrupt:
        print("knet: the page is closed, and its files are deleted", file=sys.stderr)
    return 0


def _write(args: argparse.Namespace) -> int:
    """Writes overlays, panoptic PNGs, a video and index.html, and prints where they are."""
    from tqdm import tqdm

    from knet.files import atomic_path
    from knet.inference.load import load
    from knet.inference.results.page import Row, write_index
    from knet.inference.results.writers import ResultWriter
    from knet.inference.segmenter import VideoState
    from knet.inference.sources.paths import open_source

    output, rows = Path(args.output or "demo-results"), []
    segmenter = load(MODEL, device=args.device, threads=args.threads)
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
                print(f"{item.name}: {counted(len(result.segments), 'segment')} ({found})")
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
