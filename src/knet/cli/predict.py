"""knet predict: images, folders, patterns, videos and cameras in; overlays, maps, tables and tracks out."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from knet.cli.drawing import add_drawing_options, drawing_options
from knet.cli.json_rows import JsonDocument
from knet.cli.many import ImageRun, add_many_options, image_plan, tell_failures, unfinished_files, without_plan
from knet.cli.options import add_json, add_model_options, add_verb, model_options, precision_note, refuse_absent
from knet.cli.stopping import Stopping
from knet.compiled import working_seconds
from knet.errors import ConfigError, DataError, PredictionError, counted
from knet.files import keeping

if TYPE_CHECKING:
    from pathlib import Path

    from knet.inference.pipeline import Here
    from knet.inference.results.predictions import PredictionWriter
    from knet.inference.results.segmentation import Segmentation
    from knet.inference.segmenter import Segmenter
    from knet.inference.sources.paths import SourceFile
    from knet.inference.sources.streams import Frame

    Results = Generator[tuple[Frame, Segmentation | PredictionError, float], None, None]

_SETTINGS = ("track_follow", "track_likeness", "track_overlap")  # of one tracker, each


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "predict",
        "segment images, folders, patterns, videos and cameras",
        "knet predict rtknet-lite-street street.jpg drive.mp4 'photos/*.png' --formats overlay,panoptic,json\n"
        "  knet predict rtknet-lite-street drive.mp4 --track --formats video,tracks",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a name from `knet models`, a .safetensors file of knet, or what `knet export` wrote (.onnx, .xml, or, "
        "experimental, TensorRT's .engine)",
    )
    sources = (
        "an image, a folder, a pattern in quotes, a video, the number or device of a webcam, an address (rtsp://, "
        "http://, rtmp://, udp:// ...), a named pipe, or - for standard input"
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help=sources)
    parser.add_argument("--output", default="results", metavar="DIR", help="folder for the results (default: results)")
    parser.add_argument(
        "--formats",
        metavar="LIST",
        help="any of overlay,panoptic,instances,semantic,json,polygons,video,cvat,labelstudio, and with --track any of "
        "step,vipseg,cityscapes-vps,vipseg-json,cityscapes-vps-json,tracks,mots, separated by commas "
        "(default: video for videos, for cameras and with --track, otherwise overlay)",
    )
    _add_tracking_options(parser)
    _add_choosing_options(parser)
    add_drawing_options(parser)
    parser.add_argument(
        "--submission",
        metavar="KIND",
        help="write a submission to a test server, such as cityscapes-semantic, coco-instance or ade20k-semantic; "
        "for clip models youtube-vis, from the folders valid/JPEGImages/* beside valid.json",
    )
    add_many_options(parser)
    add_json(parser, "the segments of all images, a line each as they come,")
    add_model_options(parser)
    parser.set_defaults(run=run)


def _add_tracking_options(parser: argparse.ArgumentParser) -> None:
    track = "follow objects from frame to frame (default for video models; other models do it by overlap)"
    parser.add_argument("--track", action=argparse.BooleanOptionalAction, help=track)
    parser.add_argument(
        "--tracker",
        choices=["embeddings", "overlap"],
        help="with --track, how objects are found again: by embeddings, which only models trained on video have, or by "
        "overlap (default: the model's own tracker)",
    )
    memory = "with --track, forget an object after N frames in a row without it (default: 10 by overlap, else 5)"
    parser.add_argument("--track-memory", type=int, metavar="N", help=memory)
    parser.add_argument(
        "--track-start",
        type=float,
        metavar="S",
        help="with --track, give no number to new objects less certain than this, 0..1 (default: 0.35; none for "
        "panoptic models by overlap)",
    )
    classes = "with --track, follow objects of these classes only, such as car,person (default: all things)"
    parser.add_argument("--track-classes", metavar="LIST", help=classes)
    follow = "by embeddings: let only objects as certain as this continue a track, 0..1 (default: 0.3)"
    parser.add_argument("--track-follow", type=float, metavar="S", help=follow)
    likeness = "by embeddings: take objects that are more alike than this for the same, 0..1 (default: 0.5)"
    parser.add_argument("--track-likeness", type=float, metavar="S", help=likeness)
    overlap = "by overlap: least IoU of an object and where it is expected, 0..1 (default: 0.1)"
    parser.add_argument("--track-overlap", type=float, metavar="S", help=overlap)


def _add_choosing_options(parser: argparse.ArgumentParser) -> None:
    classes = "leave out segments of all other classes, in results and tracks, such as car,person"
    parser.add_argument("--only", type=_names, metavar="LIST", help=classes)
    parser.add_argument("--region", type=_edges, metavar="X0,Y0,X1,Y1", help="look at this part of each image alone")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth frame (default: 1)")
    start = "begin at this time of each video, in seconds or as MM:SS; in folders of numbered images at this number"
    parser.add_argument("--start", type=_moment, metavar="TIME", help=start)
    parser.add_argument("--end", type=_moment, metavar="TIME", help="end before this time, or number")


def run(args: argparse.Namespace) -> int:
    """Segments every source. What cannot be read or segmented is told at the end; the rest is done all the same."""
    from knet.inference.sources.cameras import camera
    from knet.inference.sources.fetched import local_file
    from knet.inference.sources.paths import count_images, expand_sources
    from knet.inference.sources.span import Span

    refuse_absent(args.model, args.weights)
    span, args.sources = Span(args.every, args.start, args.end), [local_file(source) for source in args.sources]
    files = expand_sources([source for source in args.sources if not camera(source)])
    cameras = any(camera(source) for source in args.sources)
    plan = image_plan(args, files, cameras or span != Span())
    from tqdm import tqdm

    from knet.inference.load import load  # which imports torch: the sources are known to be there by now
    from knet.inference.pipeline import WriteBehind, read_ahead
    from knet.inference.results.predictions import PredictionWriter, check_all_formats, refuse_prelabels
    from knet.inference.results.submissions import OF_CLIPS, submission_names
    from knet.inference.sources.streams import open_stream

    if args.submission and args.submission != OF_CLIPS:
        submission_names(args.submission, [file.path.stem for file in files])  # the server refuses wrong ones
    drawing = drawing_options(args)
    segmenter = load(args.model, **model_options(args))
    clips = segmenter.task == "clip"
    images = _clip_images(args, files, cameras) if clips else None
    args.track = clips or segmenter.engine.embeds if args.track is None else args.track
    chosen = _chosen(args, segmenter)
    tracking = _tracking(args, segmenter)
    formats = _chosen_formats(args, files)
    check_all_formats(formats, segmenter.categories, args.track)
    refuse_prelabels(formats, plan)
    if plan is None or args.track or "video" in formats:
        without_plan(args)
        plan = None
    failed: list[str] = []
    done, seconds, unfinished = 0, 0.0, False
    note = None if args.track else lambda text: None  # missing frames matter to tracking alone
    with ExitStack() as stack:
        read = (file.path for file in files) if plan is None else plan.paths
        stack.enter_context(keeping([*read, args.model, args.weights], below=args.output))
        stopping = stack.enter_context(Stopping())
        printed = stack.enter_context(JsonDocument(args.json, failed))
        alone = stack.enter_context(ImageRun(args, plan, segmenter, formats, failed)) if plan else None
        writing = {"track": args.track, "submission": args.submission, "clips": images, "drawing": drawing}
        writing |= alone.writing if alone else {}
        writer = stack.enter_context(PredictionWriter(args.output, formats, segmenter.categories, **writing))

        def finish(error: object, *details: object) -> None:
            if unfinished:
                writer.end_early()
            elif alone and error is None:
                alone.end()

        def frames_of(here: Here) -> Iterable[Frame]:
            report = here(lambda error: failed.append(str(error)))
            return alone.frames(here) if alone else open_stream(args.sources, report, note, span, stopping.event)

        stack.push(finish)
        # Frames are read, and results drawn and written, in threads beside the network.
        frames = read_ahead(frames_of)
        write = stack.enter_context(WriteBehind(writer.write))
        stack.callback(frames.close)
        total = alone.left if alone else None if cameras or span != Span() else count_images(files)
        if alone:
            files.clear()  # of 100,000 images, ten times what the plan takes
        shown = tqdm(stopping.frames(frames), total=total, desc=segmenter.name, unit="image", disable=None)
        if clips:
            found = _of_clips(segmenter, shown, failed, writer, stopping, chosen)
        elif args.track:
            found = _tracked(segmenter, shown, tracking | chosen)
        else:
            found = _segmented(segmenter, shown, cameras, chosen)
        stack.callback(found.close)
        endless = cameras
        try:
            for frame, result, spent in found:
                if isinstance(result, PredictionError):
                    reason = f"'{frame.item.path}': {result}" if frame.item.path else str(result)
                    alone.note(frame.number, reason) if alone else failed.append(reason)
                    continue
                write(result, frame)
                done, seconds = done + 1, seconds + spent
                endless = frame.item.path is None and frame.item.video is not None and frame.item.video.frames is None
                printed.add(frame, result)
        except KeyboardInterrupt:
            if stopping.at_once:
                raise
            stopping.ask()
        unfinished = printed.unfinished = stopping.signal is not None and not endless
    listed = alone.listed if alone else ""
    tell_failures(failed, listed)
    if not args.json:
        print(f"{_summary(args, segmenter, formats, done, seconds)}; {len(failed)} failed{listed}")
    status = 2 if failed else 0
    if unfinished or stopping.signal not in (None, signal.SIGINT):
        of = counted(done, "image") if not total else f"{done} of {counted(total, 'image')}"
        where = unfinished_files(args, resumable=alone is not None) if unfinished else ""
        print(f"knet: stopped by {stopping.name} after {of}{where}.", file=sys.stderr)
    # Ctrl-C is how a camera is ended; else a caller must not take the run for a finished one.
    return 128 + stopping.signal if stopping.signal and (unfinished or stopping.signal != signal.SIGINT) else status


def _summary(args: argparse.Namespace, segmenter: Segmenter, formats: Sequence[str], done: int, seconds: float) -> str:
    if not done:
        return "0 images, nothing saved"
    kinds = ", ".join([*formats, args.submission] if args.submission else formats)
    each = f"{1000 * seconds / done:.0f} ms each{precision_note(args, segmenter)}"
    return f"{counted(done, 'image')}, {each}, {kinds} saved to {args.output}/"


def _chosen_formats(args: argparse.Namespace, files: Sequence[SourceFile]) -> list[str]:
    if not args.formats:
        if args.submission:
            return []
        return ["video" if args.track or all(file.video for file in files) else "overlay"]
    return [name.strip() for name in args.formats.split(",") if name.strip()]


def _segmented(segmenter: Segmenter, frames: Iterable[Frame], live: bool, chosen: dict[str, Any]) -> Results:
    """Each frame with its result or what kept it from one, and the seconds that it took of the time of all."""
    from knet.inference.pipeline import parallel_map

    # A camera's frame must not wait for the next one; engines of exported models use the whole processor for each.
    workers = 2 if segmenter.net is not None and segmenter.device.type == "cpu" and not live else 1

    def work(frame: Frame) -> tuple[Frame, Segmentation | PredictionError, float]:
        start = working_seconds()
        try:
            result = segmenter.segment(frame.item.image, frame.item.name, **chosen)
        except PredictionError as error:  # raised, it would end the images that are computed beside this one
            return frame, error, 0.0
        return frame, result, (working_seconds() - start) / workers

    yield from parallel_map(work, frames, workers)


def _tracked(segmenter: Segmenter, frames: Iterable[Frame], tracking: dict[str, Any]) -> Results:
    """As `_segmented`, for frames that need what was seen in the frame before, or the last one with a result."""
    follow, begins = segmenter.tracker(**tracking), False
    for frame in frames:
        start = working_seconds()
        if frame.first:
            follow.reset()
        begins = begins or frame.first
        try:
            result = follow.next(frame.item.image, frame.time, frame.item.name)
        except PredictionError as error:
            yield frame, error, 0.0
            continue
        # Where the first frame has no result, the video begins with the next, for whoever writes it.
        frame, begins = replace(frame, first=begins), False
        yield frame, result, working_seconds() - start


def _chosen(args: argparse.Namespace, segmenter: Segmenter) -> dict[str, Any]:
    """The options for choosing as keyword arguments of a segmenter's calls. A wrong one is a `ConfigError`."""
    from knet.inference.results.chosen import class_ids

    chosen = {name: getattr(args, name) for name in ("only", "region") if getattr(args, name) is not None}
    segmenter.settings.changed(segmenter.task, cast(Any, chosen))  # before any work
    class_ids(args.only, segmenter.categories)
    return chosen


def _tracking_options(args: argparse.Namespace) -> list[str]:
    """The options for tracking that were given."""
    names = ("tracker", "track_memory", "track_start", "track_classes", *_SETTINGS)
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]


def _tracking(args: argparse.Namespace, segmenter: Segmenter) -> dict[str, Any]:
    """The options for tracking as keyword arguments of `Segmenter.segment_next`. A wrong one is a `ConfigError`."""
    from knet.inference.identities import choose_tracker, tracked_ids
    from knet.inference.results.chosen import class_ids

    options = _tracking_options(args)
    if options and not args.track:
        raise ConfigError(f"The option {options[0]} is for tracked videos; give --track as well, or leave it out.")
    if not args.track or segmenter.task == "clip":
        return {}
    tracker = choose_tracker(args.tracker, segmenter.own_tracker, segmenter.engine.embeds, segmenter.name)
    given = {"memory": args.track_memory, "start": args.track_start}
    given |= {option.removeprefix("track_"): getattr(args, option) for option in _SETTINGS}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if not hasattr(tracker, name):
            other = "overlap" if name == "overlap" else "embeddings"
            raise ConfigError(f"The option --track-{name} is for the tracker '{other}'; leave it out.")
    tracker = replace(tracker, **given)
    classes = None if args.track_classes is None else [name.strip() for name in args.track_classes.split(",")]
    tracked_ids(classes, segmenter.categories)  # before any work
    if classes is None and args.only is not None:  # what is left out of the results gets no number either
        only = class_ids(args.only, segmenter.categories)
        classes = [category.name for category in segmenter.categories if category.thing and category.id in only]
    return {"tracker": tracker, "classes": classes}


def _of_clips(
    segmenter: Segmenter,
    frames: Iterable[Frame],
    failed: list[str],
    writer: PredictionWriter,
    stopping: Stopping,
    chosen: dict[str, Any],
) -> Results:
    """As `_segmented`, with a clip model; the frames of a video share its seconds, reading included."""
    from knet.inference.clip import frame_results, segment_clips

    start = time.perf_counter()
    for clip, objects in segment_clips(segmenter, frames, lambda error: failed.append(str(error)), **chosen):
        if stopping.signal is not None:  # perhaps in the middle of the clip
            return
        spent = (time.perf_counter() - start) / len(clip)
        size, names = clip[0].item.image.shape[:2], [frame.item.name for frame in clip]
        try:
            writer.write_clip(clip, objects)
        except DataError as error:
            failed.append(str(error))
        for frame, result in zip(clip, frame_results(objects, size, names, segmenter.categories), strict=True):
            yield frame, result, spent
        start = time.perf_counter()


def _clip_images(args: argparse.Namespace, files: Sequence[SourceFile], cameras: bool) -> list[Path]:
    """The files that a clip model gets. Raises `ConfigError` for an option or a source that is not for such models."""
    from knet.inference.results.submissions import OF_CLIPS

    if cameras:
        raise ConfigError("A model for clips looks at all frames at once, and a camera has no last one; give videos.")
    options = _tracking_options(args) + (["--region"] if args.region else [])
    if options:
        raise ConfigError(f"The option {options[0]} is for models that track from frame to frame; leave it out.")
    if args.submission not in (None, OF_CLIPS):
        raise ConfigError(f"A model for clips makes the submission '{OF_CLIPS}', not '{args.submission}'.")
    if args.submission and any(file.video for file in files):
        raise ConfigError(f"The submission '{OF_CLIPS}' is made of folders of frames; leave video files out.")
    return [file.path for file in files]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _edges(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(edge) for edge in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not X0,Y0,X1,Y1 in pixels, such as 0,200,1280,720") from None


def _moment(text: str) -> float:
    """Reads seconds, MM:SS or HH:MM:SS."""
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or min(parts) < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no time; give seconds, such as 12.5, or MM:SS")
    return sum(part * 60**place for place, part in enumerate(reversed(parts)))
