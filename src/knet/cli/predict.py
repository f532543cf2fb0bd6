"""knet predict: images, folders, patterns, videos and cameras in; overlays, maps, tables and tracks out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from knet.cli.options import add_model_options, add_verb, model_options, precision_note

if TYPE_CHECKING:
    from knet.inference.results.segmentation import Segmentation
    from knet.inference.segmenter import Segmenter
    from knet.inference.sources.paths import SourceFile
    from knet.inference.sources.streams import Frame
    from knet.merge.clip import ClipObject

    Results = Generator[tuple[Frame, Segmentation, float], None, None]
    ClipWriter = Callable[[Sequence[Frame], Sequence[ClipObject]], None]


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "predict",
        "segment images, folders, patterns, videos and cameras",
        "knet predict rtknet-slim-camvid street.jpg drive.mp4 'photos/*.png' --formats overlay,panoptic,json\n"
        "  knet predict rtknet-slim-camvid drive.mp4 --track --formats video,tracks",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a name of `knet models`, a .safetensors file of knet, or what `knet export` wrote (.onnx, .xml, .engine)",
    )
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+", help="image, folder, 'pattern', video, a webcam's number or rtsp://..."
    )
    parser.add_argument("--output", default="results", metavar="DIR", help="folder for the results (default: results)")
    parser.add_argument(
        "--formats",
        metavar="LIST",
        help="any of overlay,panoptic,instances,semantic,json,video, and with --track of "
        "step,vipseg,cityscapes-vps,vipseg-json,cityscapes-vps-json,tracks,mots, separated by commas "
        "(default: overlay; video for videos, for cameras and with --track)",
    )
    parser.add_argument(
        "--track",
        action=argparse.BooleanOptionalAction,
        help="follow objects from frame to frame (default for models of videos; others do it by overlap)",
    )
    parser.add_argument(
        "--compatible",
        action="store_true",
        help="with --track, the faults that Video K-Net's published figures contain",
    )
    parser.add_argument(
        "--submission",
        metavar="KIND",
        help="write a submission to a test server: cityscapes-semantic, coco-instance, ade20k-semantic; "
        "of models for clips: youtube-vis, from the folders valid/JPEGImages/* beside valid.json ...",
    )
    parser.add_argument("--json", action="store_true", help="print the segments of all images as JSON, nothing else")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segments every source. A broken file is reported at the end; the others are done all the same."""
    from tqdm import tqdm

    from knet.inference.load import load
    from knet.inference.pipeline import WriteBehind, read_ahead
    from knet.inference.results.submissions import OF_CLIPS, submission_name
    from knet.inference.sources.cameras import camera
    from knet.inference.sources.paths import expand_sources
    from knet.inference.sources.streams import open_stream

    files = expand_sources([source for source in args.sources if not camera(source)])
    cameras = any(camera(source) for source in args.sources)
    if args.submission and args.submission != OF_CLIPS:
        for file in files:  # before any work: a wrong name is refused by the server
            submission_name(args.submission, file.path.stem)
    segmenter = load(args.model, **model_options(args))
    clips = segmenter.task == "clip"
    if clips:
        _check_clips(args, files, cameras)
    args.track = clips or segmenter.engine.embeds if args.track is None else args.track
    default = "" if args.submission else "video" if args.track or all(file.video for file in files) else "overlay"
    formats = [name.strip() for name in (args.formats or default).split(",") if name.strip()]

    failed: list[str] = []
    done, seconds, results = 0, 0.0, []

    def note(text: str) -> None:
        if args.track:
            print(f"knet: {text}", file=sys.stderr)

    with ExitStack() as stack:
        # Frames are read, and results drawn and written, in threads beside the network.
        frames = read_ahead(lambda here: open_stream(args.sources, here(lambda e: failed.append(str(e))), here(note)))
        write = stack.enter_context(WriteBehind(_writer(args, segmenter, formats, stack)))
        stack.callback(frames.close)
        submit = _clip_writer(args, segmenter, files, stack) if clips and args.submission else None
        shown = tqdm(frames, total=None if cameras else _count(files), desc=segmenter.name, unit="image", disable=None)
        if clips:
            found = _of_clips(segmenter, shown, failed, submit)
        else:
            found = _tracked(segmenter, shown, args) if args.track else _segmented(segmenter, shown, cameras)
        stack.callback(found.close)
        try:
            for frame, result, spent in found:
                write(result, frame)
                done, seconds = done + 1, seconds + spent
                if args.json:
                    results.append({"image": str(frame.item.path or frame.item.name), **result.to_dict()})
        except KeyboardInterrupt:
            if not cameras:  # which have no other end: what was written so far is finished
                raise
    for sentence in failed:
        print(f"knet: {sentence}", file=sys.stderr)
    if args.json:
        print(json.dumps({"results": results, "failed": failed}, indent=1))
    else:
        each = f", {1000 * seconds / done:.0f} ms each{precision_note(args, segmenter)}" if done else ""
        kinds = ", ".join([*formats, args.submission] if args.submission else formats)
        saved = f"{kinds} saved to {args.output}/" if done else "nothing saved"
        print(f"{done} images{each}, {saved}; {len(failed)} failed")
    return 2 if failed else 0


def _segmented(segmenter: Segmenter, frames: Iterable[Frame], live: bool) -> Results:
    """Each frame with its result and the seconds that it took of the time of all."""
    from knet.inference.pipeline import side_by_side

    # A camera's frame is not to wait for the next one; what runs exported models uses the whole processor for each.
    workers = 2 if segmenter.net is not None and segmenter.device.type == "cpu" and not live else 1

    def work(frame: Frame) -> tuple[Frame, Segmentation, float]:
        start = time.perf_counter()
        result = segmenter.segment(frame.item.image, frame.item.name)
        return frame, result, (time.perf_counter() - start) / workers

    yield from side_by_side(work, frames, workers)


def _tracked(segmenter: Segmenter, frames: Iterable[Frame], args: argparse.Namespace) -> Results:
    """The same of frames that need what was seen in the frame before."""
    from knet.inference.identities import VideoState

    state = VideoState()
    for frame in frames:
        start = time.perf_counter()
        state = VideoState() if frame.first else state
        result, state = segmenter.segment_next(
            frame.item.image, state, frame.time, frame.item.name, compatible=args.compatible
        )
        yield frame, result, time.perf_counter() - start


def _of_clips(segmenter: Segmenter, frames: Iterable[Frame], failed: list[str], submit: ClipWriter | None) -> Results:
    """As `_segmented`, of a model for clips; the seconds, reading included, are shared by the frames of a video."""
    from knet.errors import DataError
    from knet.inference.clip import frame_results, segment_clips

    start = time.perf_counter()
    for clip, objects in segment_clips(segmenter, frames, lambda error: failed.append(str(error))):
        spent = (time.perf_counter() - start) / len(clip)
        size, names = clip[0].item.image.shape[:2], [frame.item.name for frame in clip]
        if submit is not None:
            try:
                submit(clip, objects)
            except DataError as error:
                failed.append(str(error))
        for frame, result in zip(clip, frame_results(objects, size, names, segmenter.categories), strict=True):
            yield frame, result, spent
        start = time.perf_counter()


def _check_clips(args: argparse.Namespace, files: Sequence[SourceFile], cameras: bool) -> None:
    """Raises: ConfigError if an option or source is not for models that look at whole clips."""
    from knet.errors import ConfigError
    from knet.inference.results.submissions import OF_CLIPS

    if cameras:
        raise ConfigError("A model for clips looks at all frames at once, and a camera has no last one; give videos.")
    if args.compatible:
        raise ConfigError("The option --compatible is for models that track from frame to frame; leave it out.")
    if args.submission not in (None, OF_CLIPS):
        raise ConfigError(f"A model for clips makes the submission '{OF_CLIPS}', not '{args.submission}'.")
    if args.submission and any(file.video for file in files):
        raise ConfigError(f"The submission '{OF_CLIPS}' is made of folders of frames; leave video files out.")


def _clip_writer(
    args: argparse.Namespace, segmenter: Segmenter, files: Sequence[SourceFile], stack: ExitStack
) -> ClipWriter:
    from knet.inference.results.youtube_vis import YoutubeVisWriter

    images = [file.path for file in files]
    return stack.enter_context(YoutubeVisWriter(args.output, segmenter.categories, images)).write


def _writer(
    args: argparse.Namespace, segmenter: Segmenter, formats: Sequence[str], stack: ExitStack
) -> Callable[[Segmentation, Frame], None]:
    """What writes a result in all forms that were asked for; the stack finishes the files."""
    from knet.errors import ConfigError
    from knet.inference.results.film import still_video
    from knet.inference.results.formats import TRACK_FORMATS, check_formats
    from knet.inference.results.submissions import SubmissionWriter
    from knet.inference.results.track_writers import TrackWriter
    from knet.inference.results.writers import ResultWriter

    if args.compatible and not args.track:
        raise ConfigError("The option --compatible is for tracked videos; give --track as well, or leave it out.")
    of_tracks = [name for name in dict.fromkeys(formats) if args.track and name in TRACK_FORMATS]
    others = check_formats([name for name in formats if name not in of_tracks], segmenter.categories)
    results = stack.enter_context(ResultWriter(args.output, others, segmenter.categories))
    tracks: TrackWriter | None = None
    if of_tracks:
        tracks = stack.enter_context(TrackWriter(args.output, of_tracks, segmenter.categories))
    submission: SubmissionWriter | None = None
    if args.submission and segmenter.task != "clip":
        submission = stack.enter_context(SubmissionWriter(args.output, args.submission, segmenter.categories))

    def write(result: Segmentation, frame: Frame) -> None:
        item = frame.item
        # Tracked images of a folder are a video; others, of which each may be another place, go into one together.
        video = still_video(frame.sequence, item.image) if args.track and item.video is None else item.video
        results.write(result, item.image, path=item.path, video=video)
        if tracks is not None:
            tracks.write(result, frame)
        if submission is not None:
            submission.write(result)

    return write


def _count(files: Sequence[SourceFile]) -> int:
    """How many images the files hold, as far as they tell."""
    from knet.errors import DataError
    from knet.inference.sources.videos import probe_video

    total = len(files)
    for file in files:
        if file.video:
            with suppress(DataError):  # reported when its turn comes
                total += (probe_video(file.path).frames or 1) - 1
    return total
