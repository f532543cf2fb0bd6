"""Everything that `knet predict` writes, behind one writer."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from knet.calls import named_options
from knet.errors import ConfigError, OutputError
from knet.inference.results.files import Writer
from knet.inference.results.film import still_video
from knet.inference.results.formats import PRELABELS, TRACK_FORMATS, check_formats
from knet.inference.results.journal import Journal
from knet.inference.results.prelabels import PrelabelWriter
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.style import Drawing
from knet.inference.results.submissions import SubmissionWriter
from knet.inference.results.track_writers import TrackWriter
from knet.inference.results.writers import ResultWriter
from knet.inference.results.youtube_vis import YoutubeVisWriter
from knet.inference.sources.plan import ImagePlan
from knet.inference.sources.streams import Frame
from knet.merge.clip import ClipObject
from knet.structures import Category


def put_together(journal: Journal, writers: Sequence[Writer]) -> None:
    """Makes the documents about all images from a journal, unless other processes still have images to do."""
    for rows in journal.rows() or ():
        for writer, row in zip(writers, rows, strict=True):
            if row is not None:
                writer.add_rows(*row)


def check_all_formats(
    formats: Sequence[str], categories: Sequence[Category], track: bool
) -> tuple[list[str], Sequence[str]]:
    """Formats of tracks, or of pre-labels, and the others.

    Raises:
        ConfigError: one is unknown, or cannot hold the classes.
    """
    kinds = TRACK_FORMATS if track else PRELABELS
    special = [name for name in dict.fromkeys(formats) if name in kinds]
    return special, check_formats([name for name in formats if name not in special], categories)


def refuse_prelabels(formats: Sequence[str], plan: ImagePlan | None) -> None:
    """Raises `ConfigError` for a format of pre-labels where not all sources are image files, that is without a plan."""
    named = [name for name in formats if name in PRELABELS]
    if named and plan is None:
        raise ConfigError(
            f"The format '{named[0]}' is about image files; leave out videos, cameras, --track, --every and --start."
        )


class PredictionWriter(ExitStack):
    """Writes the frames of `open_stream` and their results in every format asked for. A context manager.

    Args:
        folder: gets the files, and is made if needed.
        formats: any of `FORMATS`, with `track` of `TRACK_FORMATS`, and without it, for image files, of `PRELABELS`.
        categories: the class table of the model.
        track: whether objects are followed from frame to frame. The images of a folder then are a video; otherwise each
            may show another place, and all of them go into one video.
        submission: a submission to write as well: one of `KINDS`, or "youtube-vis".
        plan, journal: of a run over images. Files are named as the plan says, and each image is noted in the journal,
            from which the documents about all images are made at the end.
        drawing: the options of `Segmentation.overlay`, for pictures and films.
        clips: for "youtube-vis" the images of all videos, see `YoutubeVisWriter`; None if the model is not for clips.

    Raises:
        ConfigError: an unknown format, submission or option of drawing, or one that cannot hold the class table.
        DataError: `clips` are not those of a data set in YouTube-VIS's form.
        OutputError: the folder cannot be made or written.
    """

    @named_options
    def __init__(
        self,
        folder: str | Path,
        formats: Sequence[str],
        categories: Sequence[Category],
        *,
        track: bool = False,
        submission: str | None = None,
        clips: Iterable[Path] | None = None,
        plan: ImagePlan | None = None,
        journal: Journal | None = None,
        drawing: Drawing | None = None,
    ):
        super().__init__()
        self._track = track
        special, others = check_all_formats(formats, categories, track)
        self._results = self.enter_context(ResultWriter(folder, others, categories, drawing))
        self._tracks: TrackWriter | None = None
        self._images: SubmissionWriter | None = None
        self._clips: YoutubeVisWriter | None = None
        self._labels: PrelabelWriter | None = None
        if special and not track:
            self._labels = self.enter_context(PrelabelWriter(folder, special, categories))
        elif special:
            self._tracks = self.enter_context(TrackWriter(folder, special, categories))
        if submission and clips is not None:
            self._clips = self.enter_context(YoutubeVisWriter(folder, categories, clips))
        elif submission:
            self._images = self.enter_context(SubmissionWriter(folder, submission, categories))
        self._plan, self._journal = plan, journal
        for writer in self._with_rows():
            writer.keeps_rows = journal is not None
        self.push(self._put_together)

    def write(self, segmentation: Segmentation, frame: Frame) -> None:
        """Writes the result of a frame; DataError if it does not fit a format or the submission."""
        item = frame.item
        video = still_video(frame.sequence, item.image) if self._track and item.video is None else item.video
        plan, place = self._plan, frame.number
        names = {"name": plan.name(place), "file_name": plan.file_name(place)} if plan is not None else {}
        files = self._results.write(
            segmentation, item.image, path=item.path, video=video, seconds=item.seconds, **names
        )
        if self._tracks is not None:
            self._tracks.write(segmentation, frame)
        if self._images is not None:
            files += self._images.write(segmentation)
        if self._labels is not None and item.path is not None:
            files += self._labels.write(segmentation, item.path)
        if self._journal is not None:
            self._journal.add(frame.number, files, [writer.kept for writer in self._with_rows()])

    def end_early(self) -> None:
        """Finishes all files as those of a run that was stopped: their names end in `_unfinished`. See `Writer`."""
        self._put_together(None)
        with ExitStack() as stack:
            for writer in (self._results, self._tracks, self._images, self._labels, self._clips):
                if writer is not None:
                    stack.callback(writer.end_early)

    def _with_rows(self) -> list[Writer]:
        """The writers of documents about all images."""
        return [writer for writer in (self._results, self._images, self._labels) if writer is not None]

    def _put_together(self, kind: type[BaseException] | None, *details: object) -> None:
        """Makes the documents about all images from the journal, unless other processes still work on theirs."""
        journal, self._journal = self._journal, None
        if journal is not None:
            with suppress(OutputError) if kind else nullcontext():  # the error on its way says more
                put_together(journal, self._with_rows())

    def write_clip(self, frames: Sequence[Frame], objects: Sequence[ClipObject]) -> None:
        """Adds a video's objects to the submission, if that is one of videos; DataError if frames could not be read."""
        if self._clips is not None:
            self._clips.write(frames, objects)
