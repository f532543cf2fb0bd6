"""knet predict: images, folders, patterns and videos in; overlays, maps and tables out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from knet.cli.options import add_model_options, add_verb, model_options


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "predict",
        "segment images, folders, patterns and videos",
        "knet predict rtknet-slim-camvid street.jpg drive.mp4 'photos/*.png' --formats overlay,panoptic,json",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of `knet models`, or a .safetensors file of knet")
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="image, folder, 'pattern' or video")
    parser.add_argument("--output", default="results", metavar="DIR", help="folder for the results (default: results)")
    parser.add_argument(
        "--formats",
        metavar="LIST",
        help="any of overlay,panoptic,instances,semantic,json,video, separated by commas "
        "(default: overlay; video where every source is one)",
    )
    parser.add_argument(
        "--submission",
        metavar="KIND",
        help="write a submission to a test server: cityscapes-semantic, coco-instance, ade20k-semantic ...",
    )
    parser.add_argument("--json", action="store_true", help="print the segments of all images as JSON, nothing else")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segments every source. A broken file is reported at the end; the others are done all the same."""
    from tqdm import tqdm

    from knet.errors import DataError
    from knet.inference.load import load
    from knet.inference.sources import expand_sources, open_source, probe_video
    from knet.inference.submissions import SubmissionWriter, submission_name
    from knet.inference.writers import ResultWriter, check_formats

    files = expand_sources(args.sources)
    if args.submission:
        for file in files:  # before any work: a wrong name is refused by the server
            submission_name(args.submission, file.path.stem)
    default = "" if args.submission else "video" if all(file.video for file in files) else "overlay"
    formats: Sequence[str] = [name.strip() for name in (args.formats or default).split(",") if name.strip()]
    segmenter = load(args.model, **model_options(args))
    formats = check_formats(formats, segmenter.categories)

    failed: list[str] = []
    done, seconds, results = 0, 0.0, []
    with ExitStack() as stack:
        writer = stack.enter_context(ResultWriter(args.output, formats, segmenter.categories))
        submission: SubmissionWriter | None = None
        if args.submission:
            submission = stack.enter_context(SubmissionWriter(args.output, args.submission, segmenter.categories))
        total = len(files)
        for file in files:
            if file.video:
                try:
                    total += (probe_video(file.path).frames or 1) - 1
                except DataError:
                    continue  # open_source reports it when its turn comes
        items = open_source([file.path for file in files], on_error=lambda error: failed.append(str(error)))
        for item in tqdm(items, total=total, desc=segmenter.name, unit="image", disable=None):
            start = time.perf_counter()
            result = segmenter.segment(item.image, item.name)
            seconds += time.perf_counter() - start
            writer.write(result, item.image, path=item.path, video=item.video)
            if submission is not None:
                submission.write(result)
            done += 1
            if args.json:
                results.append({"image": str(item.path or item.name), **result.to_dict()})
    for sentence in failed:
        print(f"knet: {sentence}", file=sys.stderr)
    if args.json:
        print(json.dumps({"results": results, "failed": failed}, indent=1))
    else:
        each = f", {1000 * seconds / done:.0f} ms each" if done else ""
        kinds = ", ".join([*formats, args.submission] if args.submission else formats)
        print(f"{done} images{each}, {kinds} saved to {args.output}/; {len(failed)} failed")
    return 2 if failed else 0
