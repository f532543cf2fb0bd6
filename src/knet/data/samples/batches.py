"""Decides which sample comes when in training, and how it is augmented, from the seed and the iteration alone.

A run that stops and resumes at iteration i goes on exactly as if it had not stopped, with any number of loader
processes, because no generator is carried along: sample k of the batch has one of its own, seeded by (seed, i, k).
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from knet.data.readers.mixture import Mixture, Share
from knet.data.readers.reader import Reader
from knet.data.samples.paste import ObjectPaste
from knet.data.samples.transforms import TrainAugmentation
from knet.errors import ConfigError, DataError, TrainingError
from knet.structures import Target

# The first number of each seed keeps the two kinds of streams apart: numpy pads short seeds with zeros.
_ORDER_STREAM, _SAMPLE_STREAM = 1, 2
_GRACE = 30  # seconds


class Draw(NamedTuple):
    """Sample number `position` of the (whole) batch of `iteration` is number `image` of the data set."""

    iteration: int
    position: int
    image: int


class BatchPlan(Sampler[list[Draw]]):
    """The batches of a run, without end: use it as a DataLoader's `batch_sampler`.

    An epoch draws from each set as many images as its weight says, in a random order, each as often as any other of the
    set up to one; without weights these are all images once. Epochs follow each other without a gap, so a batch may
    hold the end of one and the start of the next.

    Args:
        shares: of the sets that follow each other in the data set; or its length, if it is one.
        batch: images an iteration, over all processes.
        rank, world: the number of this process, and how many there are; each takes an equal share of every batch.
        parts: into how many parts a share must divide.

    Raises:
        ConfigError: an empty data set, or a batch that does not divide among processes and parts.
    """

    def __init__(
        self,
        shares: int | Sequence[Share],
        batch: int,
        seed: int,
        start_iteration: int = 0,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
    ):
        shares = (Share(shares, shares),) if isinstance(shares, int) else tuple(shares)
        if any(share.images < 1 for share in shares):
            raise ConfigError("The data set is empty: training needs at least one image.")
        if batch < 1 or world < 1 or batch % world or not 0 <= rank < world:
            raise ConfigError(f"A batch of {batch} does not divide among {world} processes; give a multiple.")
        if parts < 1 or batch // world % parts:
            raise ConfigError(
                f"A batch of {batch} gives {batch // world} images to each of {world} processes, which do not divide "
                f"into accumulate={parts} parts; give numbers that divide."
            )
        if seed < 0 or start_iteration < 0:
            raise ConfigError(f"seed {seed} and start iteration {start_iteration} must be 0 or more.")
        self._shares, self._batch, self._seed, self._start = shares, batch, seed, start_iteration
        self._length = sum(share.weight for share in shares)
        self._positions = range(rank * (batch // world), (rank + 1) * (batch // world))

    def starting_at(self, iteration: int) -> BatchPlan:
        """The same plan from another iteration on."""
        plan = copy(self)
        plan._start = iteration
        return plan

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch_of_order, order = -1, np.empty(0, np.int64)
        iteration = self._start
        while True:
            draws = []
            for position in self._positions:
                epoch, place = divmod(iteration * self._batch + position, self._length)
                if epoch != epoch_of_order:
                    epoch_of_order, order = epoch, self._order(epoch)
                draws.append(Draw(iteration, position, int(order[place])))
            yield draws
            iteration += 1

    def _order(self, epoch: int) -> np.ndarray:
        """The images of an epoch in their order."""
        images, start = [], 0
        for number, (length, weight) in enumerate(self._shares):
            passes, places = np.divmod(np.arange(epoch * weight, (epoch + 1) * weight), length)
            for one in np.unique(passes) if weight != length else ():  # a whole pass is put in order below
                rng = np.random.default_rng([_ORDER_STREAM, self._seed, int(one), number + 1])
                places[passes == one] = rng.permutation(length)[places[passes == one]]
            images.append(start + places)
            start += length
        rng = np.random.default_rng([_ORDER_STREAM, self._seed, epoch])
        return rng.permutation(np.concatenate(images))


@dataclass(slots=True)
class Item:
    """One augmented sample: (3,h,w) uint8 RGB, what to find in it, and its position in the whole batch.

    `faults` are images that could not be read, which this one replaces: name -> what is wrong.
    """

    image: Tensor
    target: Target
    position: int
    faults: dict[str, str]


@dataclass(slots=True)
class Batch:
    """The items of a process in an iteration; images keep their sizes, since padding happens on the device."""

    images: list[Tensor]
    targets: list[Target]
    positions: list[int]
    faults: dict[str, str]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def frames(self) -> list[list[Tensor]]:
        """What the network is called with: a list of images for each of its arguments."""
        return [self.images]

    def to(self, device: object) -> Batch:
        """The same on another device, copied without waiting where the memory is pinned."""
        images = [image.to(device, non_blocking=True) for image in self.images]  # type: ignore[call-overload]
        return Batch(images, [target.to(device) for target in self.targets], self.positions, self.faults)

    def part(self, start: int, stop: int) -> Batch:
        """The items from `start` up to `stop`."""
        part = slice(start, stop)
        return Batch(self.images[part], self.targets[part], self.positions[part], self.faults)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory (called by torch's DataLoader)."""
        images, targets = ([one.pin_memory() for one in each] for each in (self.images, self.targets))
        return Batch(images, targets, self.positions, self.faults)  # type: ignore[arg-type]


def collate(items: Sequence[Item]) -> Batch:
    """Makes a batch of items."""
    faults = {name: fault for item in items for name, fault in item.faults.items()}
    return Batch(
        [item.image for item in items], [item.target for item in items], [item.position for item in items], faults
    )


class TrainingSet(Dataset[Item]):
    """Augmented samples of a reader for the `Draw`s of a `BatchPlan`. Any two calls are independent.

    `skip` is how many unreadable images in a row may each be replaced by the next one. `paste` adds objects first.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        reader: Reader,
        augmentation: TrainAugmentation,
        seed: int,
        skip: int = 0,
        paste: ObjectPaste | None = None,
    ):
        self._reader, self._augmentation, self._seed, self._paste = reader, augmentation, seed, paste
        self._skip = min(skip, len(reader) - 1)
        self._things = [category.thing for category in reader.categories]

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def shares(self) -> Sequence[Share]:
        """The sets that it is drawn from."""
        own = self._reader
        return own.shares if isinstance(own, Mixture) else (Share(len(own), len(own)),)

    def name(self, number: int) -> str:
        """What sample `number` is called in messages."""
        return self._reader.name(number)

    def __getitem__(self, draw: Draw) -> Item:
        """The item. After `skip` unreadable images the next one's `DataError` is raised."""
        rng = np.random.default_rng([_SAMPLE_STREAM, self._seed, draw.iteration, draw.position])
        faults: dict[str, str] = {}
        while True:
            index = (draw.image + len(faults)) % len(self._reader)
            try:
                sample = self._reader.read(index)
                if self._paste is not None:
                    sample = self._paste(sample, rng)
            except DataError as fault:
                if len(faults) >= self._skip:
                    raise
                faults[self._reader.name(index)] = str(fault)
                continue
            return Item(*self._augmentation(sample, self._things, rng), draw.position, faults)


class Samples(Protocol):
    """What training asks of a set of samples."""

    @property
    def collate(self) -> Callable[[Sequence[Any]], Any]:
        """Makes a batch of samples."""
        ...

    @property
    def shares(self) -> Sequence[Share]:
        """The sets that it is drawn from, for a `BatchPlan`."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, draw: Draw) -> Any: ...

    def name(self, number: int) -> str:
        """What sample `number` is called in messages."""
        ...


def load_batches(
    samples: Samples, plan: BatchPlan, workers: int = 0, pin_memory: bool = False
) -> Generator[Any, None, None]:
    """The batches of a plan, without end: close the generator.

    `workers` processes prepare batches ahead; 0 prepares them in this one. `pin_memory` keeps tensors page-locked.

    Raises:
        DataError: an image or its ground truth cannot be read; the sentence names the file.
        TrainingError: one of the processes has died. Where torch notices it itself, see `loaders_needed`.
    """
    loader: DataLoader[Any] = DataLoader(
        samples,  # type: ignore[arg-type]
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=samples.collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals_to_the_run,
    )
    batches = iter(loader)
    try:
        with _deaths_pass():
            yield from batches
    except (ConnectionError, EOFError) as fault:  # died while its batch was fetched, before the system says so
        raise _died(fault) from fault
    except DataError as fault:
        # A loader process hands over its whole traceback as the message; its last line is the sentence for the user.
        sentence = str(fault).strip().splitlines()[-1].removeprefix("knet.errors.DataError: ")
        # The error's frames hold the loader in a cycle; left to the garbage collector, each process would be waited
        # for in vain for five seconds.
        traceback.clear_frames(fault.__traceback__)
    del loader, batches
    raise DataError(sentence)


@contextmanager
def loaders_needed() -> Iterator[None]:
    """Has the death of a loader process, which torch raises wherever this process is by then, raised as one sentence.

    Raises:
        TrainingError: a process of `load_batches` was killed.
    """
    try:
        yield
    except (RuntimeError, _LoaderDied) as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _died(error) from error


class _LoaderDied(BaseException):
    """No `Exception`, as it is raised in the midst of anything: nobody there may take it for an error of his own."""


@contextmanager
def _deaths_pass() -> Iterator[None]:
    """Has the word of torch's signal handler that a loader process has died pass all that handles errors."""
    theirs = signal.getsignal(signal.SIGCHLD)
    if not callable(theirs) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, frame: Any) -> None:
        try:
            theirs(number, frame)
        except RuntimeError as error:
            raise _LoaderDied(str(error)) from error

    signal.signal(signal.SIGCHLD, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, theirs)


def _died(error: BaseException) -> TrainingError:
    reason = str(error).split(". ")[0] or type(error).__name__
    return TrainingError(
        f"A process that loads images has died ({reason}), mostly for too little memory; take fewer with workers=N or "
        "give the machine more (in a container also shared memory: --shm-size), and go on with --resume."
    )


def _leave_connections(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's hook, but silent on a run that broke off while it fetched a batch: it says itself why it ends."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _leave_signals_to_the_run(worker: int) -> None:
    """Lets the run decide when its loader processes stop, though Ctrl-C and schedulers signal every process of a job.

    After SIGTERM or SIGHUP, a loader process goes on for as long as the run may need it to finish.
    """
    sys.excepthook = _leave_connections
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
            signal.signal(number, lambda number, frame: signal.alarm(_GRACE))
