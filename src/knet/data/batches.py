"""Which sample comes when in training, and what luck it gets: a function of the seed and the iteration, nothing else.

A run that stops and resumes at iteration i sees from there exactly what it would have seen, with any number of
loader processes, because no generator is carried along: each sample draws from one seeded by (seed, i, k).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from knet.data.transforms import TrainAugmentation
from knet.errors import ConfigError, DataError
from knet.structures import Category, Sample, Target

# The first number of each seed keeps the two kinds of streams apart: numpy pads short seeds with zeros.
_ORDER_STREAM, _SAMPLE_STREAM = 1, 2


class Reader(Protocol):
    """What every reader of a data set offers."""

    categories: tuple[Category, ...]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What the image is called; unique in the data set."""
        ...

    def read(self, index: int) -> Sample:
        """Image, id map and segments."""
        ...


class Draw(NamedTuple):
    """Sample number `position` of the (whole) batch of `iteration` is number `image` of the data set."""

    iteration: int
    position: int
    image: int


class BatchPlan(Sampler[list[Draw]]):
    """The batches of a run from `start_iteration` on, without end: use it as a DataLoader's `batch_sampler`.

    length: images in the data set · batch: images an iteration, over all processes · rank, world: this process of
    how many; each takes its part of every batch. The data set is gone through in a new random order each epoch;
    epochs follow each other without a gap, so a batch may hold the end of one and the start of the next.

    Raises:
        ConfigError: an empty data set, or a batch that does not divide among the processes.
    """

    def __init__(self, length: int, batch: int, seed: int, start_iteration: int = 0, rank: int = 0, world: int = 1):
        if length < 1:
            raise ConfigError("The data set is empty: training needs at least one image.")
        if batch < 1 or world < 1 or batch % world or not 0 <= rank < world:
            raise ConfigError(f"A batch of {batch} does not divide among {world} processes; give a multiple.")
        if seed < 0 or start_iteration < 0:
            raise ConfigError(f"seed {seed} and start iteration {start_iteration} must be 0 or more.")
        self._length, self._batch, self._seed, self._start = length, batch, seed, start_iteration
        self._positions = range(rank * (batch // world), (rank + 1) * (batch // world))

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch_of_order, order = -1, np.empty(0, np.int64)
        iteration = self._start
        while True:
            draws = []
            for position in self._positions:
                epoch, place = divmod(iteration * self._batch + position, self._length)
                if epoch != epoch_of_order:
                    rng = np.random.default_rng([_ORDER_STREAM, self._seed, epoch])
                    epoch_of_order, order = epoch, rng.permutation(self._length)
                draws.append(Draw(iteration, position, int(order[place])))
            yield draws
            iteration += 1


class TrainingSet(Dataset[tuple[Tensor, Target]]):
    """Augmented samples of a reader, asked for by the `Draw`s of a `BatchPlan`. Any two calls are independent.

    reader: a data set such as `CocoPanoptic` · augmentation: from a sample and a generator to (3,h,w) uint8 RGB and
    its target · seed: of the run.
    """

    def __init__(self, reader: Reader, augmentation: TrainAugmentation, seed: int):
        self._reader, self._augmentation, self._seed = reader, augmentation, seed
        self._things = [category.thing for category in reader.categories]

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Target]:
        """(3,h,w) uint8 RGB and its target.

        Raises:
            DataError: an image or its ground truth cannot be read; the sentence names the file.
        """
        rng = np.random.default_rng([_SAMPLE_STREAM, self._seed, draw.iteration, draw.position])
        return self._augmentation(self._reader.read(draw.image), self._things, rng)


def collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Images and targets as two lists; images keep their sizes, since padding happens on the device."""
    return [image for image, _ in samples], [target for _, target in samples]


def load_batches(
    training_set: TrainingSet, plan: BatchPlan, workers: int = 0, pin_memory: bool = False
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """The batches of the plan, prepared by `workers` processes ahead of use; 0 prepares them here. Never ends.

    Raises:
        DataError: an image or its ground truth cannot be read; the sentence names the file.
    """
    loader = DataLoader(
        training_set,
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
    try:
        yield from loader
    except DataError as fault:
        # A loader process hands over its whole traceback as the message; its last line is the sentence for the user.
        sentence = str(fault).strip().splitlines()[-1].removeprefix("knet.errors.DataError: ")
        # The error's frames hold the loader in a cycle; left to the garbage collector, each process would be waited
        # for in vain for five seconds.
        traceback.clear_frames(fault.__traceback__)
    del loader
    raise DataError(sentence)
