"""Validation within a run: figures, pictures, and which weights are the best so far."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from knet.config import RunConfig, dump_config
from knet.data.readers.reader import Reader
from knet.distributed import rank
from knet.evaluation.details import Details
from knet.inference.results.samples import draw_truth, side_by_side
from knet.inference.segmenter import Segmenter
from knet.runs.callbacks.callback import Validation
from knet.runs.evaluate import figures as judge
from knet.runs.not_finite import NotFinite
from knet.runs.report.confusion import picture_of
from knet.runs.report.of_run import CONFUSION
from knet.runs.state import Progress
from knet.weights.card import Card
from knet.weights.load import save_weights

_PICTURES = 4  # images that every validation draws


def validation_is_due(config: RunConfig, progress: Progress) -> bool:
    """Whether to validate before the next iteration."""
    done = progress.iteration
    return done > progress.validated and (done % config.validate_every == 0 or done == config.iterations)


def validate(
    segmenter: Segmenter,
    weights: dict[str, torch.Tensor],
    card: Card,
    dataset: Reader,
    left_out: Collection[int],
    progress: Progress,
    config: RunConfig,
) -> Validation:
    """What weights do on the validation set, without pictures. The segmenter's network keeps the weights.

    `left_out` are images that cannot be judged. The weights are saved with the card as `last.safetensors`, also as
    `best.safetensors` unless earlier ones were better.
    """
    assert segmenter.net is not None
    segmenter.net.load_state_dict(weights)
    details: dict[str, Details] = {}
    result = judge(segmenter, dataset, left_out=left_out, details=details)
    figures = figures_of(result)
    best = main_figure(figures) >= progress.best
    save_trained(weights, card, progress, config, figures, ("last", "best") if best else ("last",))
    return Validation(progress.iteration, figures, result, details, best=best)


def save_trained(
    weights: dict[str, torch.Tensor],
    card: Card,
    progress: Progress,
    config: RunConfig,
    figures: dict[str, float] | None = None,
    names: Sequence[str] = ("last",),
) -> None:
    """Saves weights with the card, which says how they were trained, under these names in the run folder."""
    training = {"iteration": progress.iteration, "val": figures, "config": dump_config(config)}
    card = card.model_copy(update={"more": {**card.more, "training": training}})
    for name in names if rank() == 0 else ():
        save_weights(config.output / f"{name}.safetensors", weights, card)


def figures_of(result: dict[str, Any]) -> dict[str, float]:
    """The figures of `evaluate`'s result that a run logs: fractions, 0 where nothing was counted.

    These are pq, sq, rq, pq_things, pq_stuff and miou, on clips with stq, aq and vpq before them; for objects ap, ap50
    and ap75.
    """
    figures: dict[str, float | None] = {}
    if "stq" in result:
        figures |= {key: result["stq"]["all"][key] for key in ("stq", "aq")} | {"vpq": result["vpq"]["all"]["vpq"]}
    if "panoptic" in result:
        figures |= {key: result["panoptic"]["all"][key] for key in ("pq", "sq", "rq")}
        figures |= {f"pq_{kind}": result["panoptic"][kind]["pq"] for kind in ("things", "stuff")}
    if "semantic" in result:
        figures["miou"] = result["semantic"]["miou"]
    if "instance" in result:
        figures |= {key: result["instance"]["all"][key] for key in ("ap", "ap50", "ap75")}
    return {key: value or 0.0 for key, value in figures.items()}


def main_figure(figures: Mapping[str, float]) -> float:
    """The figure by which weights are chosen: STQ, PQ, mask AP or mIoU."""
    return next(iter(figures.values()))


def pictures(
    segmenter: Segmenter, dataset: Reader, left_out: Collection[int] = (), details: Mapping[str, Details] | None = None
) -> dict[str, np.ndarray]:
    """A few validation images by name, the truth on the left and the result on the right. (H,W,3) uint8 RGB each

    And, from the `details` of a validation, its confusion matrix.
    """
    drawn, lost = dict[str, np.ndarray](), NotFinite()
    # Models for clips cannot say anything about a single image.
    usable = [index for index in range(len(dataset)) if index not in left_out]
    count = 0 if segmenter.task == "clip" else min(_PICTURES, len(usable))
    for number in range(count):
        sample = dataset.read(usable[number * len(usable) // count])
        truth = draw_truth(sample, dataset.categories)
        found = lost.segment(segmenter, sample.image, sample.name)
        drawn[f"val_{number}"] = side_by_side([truth, found.overlay(sample.image)])
    if details and next(iter(details.values())).confusion.any():
        drawn[CONFUSION] = picture_of(next(iter(details.values())))
    return drawn
