"""Prediction over many images by Ray Data: workers on the cores and GPUs of one machine or of a cluster.

A worker computes and writes what `knet predict` does, by the same functions, so the files are the same. The images come
to it in chunks; what it did of one comes back and is noted in the run's journal. When a worker dies, Ray starts another
and gives it the chunk again; when the run itself is killed, another goes on after the last image in the journal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.apps.batch_images import Source, chunks, image_bytes
from knet.errors import ConfigError, DataError, KNetError, OutputError, PredictionError
from knet.files import keeping, open_own
from knet.inference.load import load
from knet.inference.results.files import Appended, make_folder, refused, write_bytes
from knet.inference.results.journal import Journal
from knet.inference.results.predictions import put_together
from knet.inference.results.writers import ResultWriter
from knet.runs.interrupt import handled
from knet.structures import Category

_TRIES = ".knet-batch-tries-"  # begins the names of files with the images that a worker began of a chunk
_MOST_DEATHS = 4  # of workers over an image: Ray starts new workers for it without end
_OBJECTS = 100 * 2**20  # bytes of memory that Ray shares among processes; images do not pass through it


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    Attributes:
        source: the images.
        model: as for `knet.load`.
        folder: of the results, the same one for all workers.
        formats: of the results.
        categories: the class table of the model.
        loading: further arguments of `knet.load`.
        calling: arguments of a call for an image.
        tables: whether results are rows of Parquet tables instead of files.
        retries: how many times reading is tried again.
        home: the folder that paths count from, of processes that are elsewhere.
    """

    source: Source
    model: str
    folder: str
    formats: tuple[str, ...]
    categories: tuple[Category, ...]
    loading: dict[str, Any] = field(default_factory=dict)
    calling: dict[str, Any] = field(default_factory=dict)
    tables: bool = False
    retries: int = 2
    home: str = ""


@dataclass(frozen=True)
class Workers:
    """How many workers, and what each of them has.

    Attributes:
        address: of a Ray cluster that runs already; None starts one on this machine, for this run alone.
        chunk: how many images a worker gets at a time.
    """

    count: int = 1
    cpus: float = 1
    gpus: float = 0
    address: str | None = None
    chunk: int = 16


class _Tries:
    """Over which images of a chunk workers died: a file with those that were begun and came to no end.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path):
        try:
            file = FileIO(open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "r+")
        except OSError as error:
            raise refused(path, error) from error
        content = file.readall()
        self._deaths, self._begun = Counter(content.split()), Appended(file, path)
        self._begun.size = len(content)

    def __enter__(self) -> _Tries:
        return self

    def __exit__(self, *error: object) -> None:
        self._begun.file.close()
        self._begun.path.unlink(missing_ok=True)

    def deadly(self, place: int) -> bool:
        """Whether so many workers died over an image that no other one should begin it."""
        return self._deaths[b"%d" % place] >= _MOST_DEATHS

    @contextmanager
    def of(self, place: int) -> Iterator[None]:
        """While this lasts, an image is begun."""
        before = self._begun.size
        self._begun.append(b"%d\n" % place)
        try:
            yield
        finally:
            self._begun.cut(before)


class Worker:
    """An actor: a model in memory, to which chunks of images come."""

    def __init__(self, job: Job):
        if job.home:
            os.chdir(job.home)  # what paths count from
        self._job, self._segmenter, self._stack = job, load(job.model, **job.loading), ExitStack()
        self._stack.enter_context(keeping([*job.source.plan.paths, job.model], below=job.folder))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Does chunks of images, each a JSON list of places; gives a JSON list of what was done for each."""
        return {"done": [json.dumps(self._told(json.loads(text))) for text in batch["places"]]}

    def _told(self, places: list[int]) -> list[dict[str, Any]]:
        """As `_chunk`; what ends the run is told by a row, for Ray would put advice of its own around an error."""
        try:
            return self._chunk(places)
        except KNetError as error:
            return [{"stop": str(error)}]

    def _chunk(self, places: list[int]) -> list[dict[str, Any]]:
        if not self._job.tables:
            return self._images(places, self._job.folder)
        with tempfile.TemporaryDirectory() as folder:
            rows = self._images(places, folder)
            if "stop" in rows[-1]:
                return rows[-1:]
            part = Path(self._job.folder) / f"part-{places[0]:09d}.parquet"
            _write_table(part, [self._cells(row, Path(folder)) for row in rows if "error" not in row])
        return [row | {"files": [part.name], "rows": [None]} if "error" not in row else row for row in rows]

    def _images(self, places: list[int], folder: str) -> list[dict[str, Any]]:
        """A row for each image; where results cannot be written, a last one says why all has to stop."""
        rows, path = list[dict[str, Any]](), Path(self._job.folder) / f"{_TRIES}{places[0]}"
        with ResultWriter(folder, self._job.formats, self._segmenter.categories) as writer, _Tries(path) as tries:
            writer.keeps_rows = True
            try:
                for place in places:
                    if tries.deadly(place):
                        rows.append(self._deadly(place))
                        continue
                    with tries.of(place):
                        rows.append(self._image(place, writer))
            except OutputError as error:  # such as a full disk
                rows.append({"stop": str(error)})
        return rows

    def _deadly(self, place: int) -> dict[str, Any]:
        path = self._job.source.plan.paths[place]
        return {
            "place": place,
            "error": f"'{path}': a worker died {_MOST_DEATHS} times over it, as it does where memory ends.",
        }

    def _image(self, place: int, writer: ResultWriter) -> dict[str, Any]:
        job, plan = self._job, self._job.source.plan
        try:
            data = image_bytes(job.source, place, job.retries)
            item = plan.frame(place, data).item
            result = self._segmenter.segment(item.image, item.name, **job.calling)
        except (DataError, PredictionError) as error:
            return {"place": place, "error": str(error)}
        files = writer.write(
            result,
            item.image,
            path=item.path,
            seconds=item.seconds,
            name=plan.name(place),
            file_name=plan.file_name(place),
        )
        return {"place": place, "files": [file.name for file in files], "rows": [writer.kept]}

    def _cells(self, row: dict[str, Any], folder: Path) -> dict[str, Any]:
        """An image's row of a table: its path and name, and the bytes of each file by its format."""
        plan, place = self._job.source.plan, row["place"]
        files = [folder / file for file in row["files"]]
        cells = {file.stem.removeprefix(f"{plan.name(place)}_"): file.read_bytes() for file in files}
        entries = {} if row["rows"][0] is None else {"panoptic_json": json.dumps(row["rows"][0][1])}
        return {"image": plan.paths[place], "name": plan.name(place), **cells, **entries}


@contextmanager
def _without_tries(folder: str) -> Iterator[None]:
    """Removes what `_Tries` left: before, as a run that was ended is no death of a worker over an image, and after."""

    def remove() -> None:
        for path in Path(folder).glob(f"{_TRIES}*"):
            path.unlink(missing_ok=True)

    remove()
    try:
        yield
    finally:
        remove()


def run_batch(job: Job, workers: Workers, options: dict[str, Any], resume: bool = False) -> tuple[int, dict[int, str]]:
    """Segments all images of a job. -> how many were done, and the reasons of the others by their place

    Args:
        options: what the results depend on, see `Journal`.
        resume: goes on with an earlier run.

    Raises:
        ConfigError: Ray is not installed, or the options are not those of the run to be resumed.
        OutputError: results cannot be written.
        PredictionError: the workers cannot be started, or die again and again.
    """
    plan, failed, done = job.source.plan, dict[int, str](), 0
    make_folder(Path(job.folder))
    documents = nullcontext() if job.tables else ResultWriter(job.folder, job.formats, job.categories)
    with Journal(job.folder, plan, options, resume=resume) as journal, documents as writer, _without_tries(job.folder):
        left = list(journal.places())
        if job.tables:  # a table is written as a whole
            unfinished = {place // workers.chunk for place in left}
            left = [place for place in range(len(plan)) if place // workers.chunk in unfinished]
        shown = tqdm(total=len(left), desc="knet batch", unit="image", disable=None)
        with shown, _ray(workers) as ray:
            for row in _results(ray, job, workers, list(chunks(left, workers.chunk))):
                shown.update()
                if "stop" in row:
                    raise OutputError(f"{row['stop']} What is done is kept: go on with --resume.")
                if "error" in row:
                    failed[row["place"]] = row["error"]
                    continue
                done += 1
                journal.add(row["place"], [Path(job.folder) / file for file in row["files"]], row["rows"])
        journal.end(clean=not failed)
        if writer is not None:
            put_together(journal, [writer])
    return done, failed


def _results(ray: Any, job: Job, workers: Workers, parts: Sequence[list[int]]) -> Iterator[dict[str, Any]]:
    """What workers did, as it comes in, image by image."""
    if not parts:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.print_on_execution_start = False, False
    items = [{"places": json.dumps(part)} for part in parts]
    count = min(workers.count, len(parts))
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    try:
        for row in dataset.iter_rows():
            yield from json.loads(row["done"])
    except ray.exceptions.RayError as error:
        reason = _raised(str(error)) or type(error).__name__
        raise PredictionError(f"Ray's workers failed: {reason}; what is done is kept: go on with --resume.") from error


def _raised(text: str) -> str:
    """The last line with an error of a worker's own in what Ray says; its advice comes after that."""
    return next((line for line in reversed(text.splitlines()) if re.match(r"\w+(Error|Exception)\b", line)), "")


@contextmanager
def _ray(workers: Workers) -> Iterator[Any]:
    """Ray, which tells nobody that it is used, and without its page; on this machine alone unless told otherwise."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        reason = (str(error).strip().splitlines() or ["no reason"])[0]
        raise ConfigError(
            f"`knet batch` needs Ray, which cannot be imported ({reason}); pip install 'knet[cluster]'."
        ) from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
    if workers.address is None:
        quiet |= {"num_cpus": max(round(workers.count * workers.cpus + 0.5), 1), "object_store_memory": _OBJECTS}
        # Ray takes the machine's own address for 127.0.0.1, and then listens to everybody.
        ray._private.services.get_node_ip_address = lambda *_: "127.0.0.1"
        quiet |= {"_node_ip_address": "127.0.0.1"} | ({} if workers.gpus else {"num_gpus": 0})
    else:
        quiet.pop("include_dashboard")  # that of the cluster is its own matter
    try:
        try:
            with own_sigterm():
                ray.init(address=workers.address or "local", **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"Ray cannot be started: {(str(error).splitlines() or ['no reason'])[0]}.") from error
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        if workers.address is None and workers.count * workers.gpus > ray.cluster_resources().get("GPU", 0):
            raise ConfigError(
                f"{workers.count} workers with {workers.gpus:g} GPUs each (--workers, --gpus) are more than the "
                f"{ray.cluster_resources().get('GPU', 0):g} GPUs of this machine; give fewer, or a share such as 0.5."
            )
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Leaves SIGTERM to whom it belongs: Ray takes it, and ends the process without a word by a status of its own.

    Where the signal comes meanwhile, Ray's handler also sets an alarm, which aborts the process three seconds later.
    """
    mine = signal.getsignal(signal.SIGTERM)
    try:
        with handled([signal.SIGTERM], mine if callable(mine) else lambda *_: None):
            yield
    except SystemExit:  # it came meanwhile
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.alarm(0)


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    from io import BytesIO

    import pyarrow
    from pyarrow import parquet

    if rows:
        buffer = BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        write_bytes(path, buffer.getvalue())
