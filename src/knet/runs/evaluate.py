"""Evaluates a model on labelled images: every image is segmented, counted and forgotten again.

Clips are evaluated by `evaluate_clips`.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.calls import named_options
from knet.config import Data, RunConfig, data_config, is_config, read_config
from knet.data.categories import load_categories
from knet.data.readers.clips import ClipReader
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.mixture import Mixture
from knet.data.readers.open import open_data
from knet.data.readers.reader import Reader
from knet.data.readers.youtube_vis import YoutubeVis
from knet.distributed import gather_objects, joined, rank, world
from knet.errors import ConfigError, shown
from knet.evaluation.details import Details, merged, of_matrix
from knet.evaluation.instance import mask_ap
from knet.evaluation.matches import find_matches
from knet.evaluation.panoptic import PanopticQuality, scores_of
from knet.evaluation.semantic import ConfusionMatrix, ade20k_means, semantic_result
from knet.inference.engines.open import exported_form
from knet.inference.identities import void_as
from knet.inference.load import choose_device, load
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.submissions import coco_instance_results
from knet.inference.segmenter import Segmenter
from knet.models.zoo import entry
from knet.runs.evaluate_clips import evaluate_clips, evaluate_tracks
from knet.runs.look_over import without
from knet.runs.not_finite import NotFinite
from knet.runs.report.page import Page, check_report, write_report
from knet.runs.report.pictures import draw_pair
from knet.weights.fetch import config_of_run

_ONLY = {CocoInstances: "instance", YoutubeVis: "clip"}  # truth for models of one task alone


@named_options
def evaluate(
    model: Segmenter | RunConfig | str | Path,
    data: Reader | Data | RunConfig | str | Path | None = None,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    linked: bool = True,
    compatible: bool = False,
    report: str | Path | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """The figures of a model for its task on a validation set, at the images' own size.

    Of several processes each takes its share of the images or clips, and all get the figures of the whole. With a model
    that is loaded already, they must have met before (`knet.distributed.joined`).

    Args:
        model: a segmenter; or what `knet.load` takes, which then computes in float32; or a config (its name, its file
            or a `RunConfig`), which names the model, its thresholds and the data.
        data: a config, whose `data.val` is taken, or a reader of a data set. None takes the data of the config that was
            given as the model, or of the overrides alone, such as `data__val__images=...`.
        weights, device, compatible: see `knet.load`; for a model that is not loaded yet.
        linked: for panoptic models on clips; False takes a video model's link and embeddings away.
        report: a page in HTML that is written: the figures, and where they come from. See docs/reports.md.
        overrides: options that replace those of the config, see `knet.read_config`.

    Returns:
        Fractions 0..1, by the model's task:

        - Panoptic: {"panoptic": as `PanopticQuality.result`, "semantic": as `mean_iou`, over the classes that occur};
          only the latter on label PNGs. On clips also {"stq": as `stq`, "vpq": as `vpq`}, and for KITTI-STEP
          "stq_video_knet", by the script of Video K-Net; "panoptic" and "semantic" are then those of single frames. A
          model for images tracks by overlap.
        - Semantic: {"semantic": as `mean_iou`}; with ADE20K's classes it has the means by both conventions.
        - Instances: {"instance": as `mask_ap`}, and of models for clips {"instance": as `ytvis_ap`}.
        - Images, or clips, of which the network says no finite numbers count as if it had found nothing; where there
          are some, also {"not_finite": their names}.

    Raises:
        ConfigError: the model needs another kind of truth, or has other classes, or an option is not for this data set.
        CheckpointError: the weights do not fit.
        DataError: an image or its truth cannot be read, or the class table does not fit STQ.
        OutputError: the report cannot be written.
    """
    if report is not None:
        check_report(report)
    model, data, options = _named(model, data, overrides)
    if isinstance(model, str | Path):
        exported = exported_form(model)
        precision = "auto" if exported else "fp32"
        with joined(choose_device("cpu" if exported else device)) as place:
            place_name = device if exported else str(place)  # runtimes know devices of their own
            segmenter = load(model, weights, place_name, precision, compatible=compatible, **options)
            return evaluate(segmenter, data, linked=linked, report=report)
    if weights is not None:
        raise ConfigError("The model has its weights already; give others to `knet.load`, and leave them out here.")
    if compatible:
        raise ConfigError("The model is loaded already; give compatible to `knet.load`, and leave it out here.")
    dataset = open_validation(data, model) if isinstance(data, Data) else data
    if report is None:
        return figures(model, dataset, linked)
    details: dict[str, Details] = {}
    result = figures(model, dataset, linked, details=details)
    if rank() == 0:
        about = [("model", model.name), ("task", model.task), ("classes", str(len(dataset.categories)))]
        about += [("data set", type(dataset).__name__), ("images", str(len(dataset)))]
        write_report(report, Page(f"Report of {model.name}", result, details, entry(model.name).published, about))
    return result


def _named(
    model: Segmenter | RunConfig | str | Path,
    data: Reader | Data | RunConfig | str | Path | None,
    overrides: dict[str, Any],
) -> tuple[Segmenter | str | Path, Reader | Data, dict[str, Any]]:
    """The model and the data that the arguments of `evaluate` name, and what a config says of loading the model."""
    if isinstance(model, RunConfig) or (data is None and isinstance(model, str | Path) and is_config(model)):
        if data is not None:
            raise ConfigError("The config names a model and its data; leave the data out, or give a model instead.")
        config = read_config(model, **overrides)
        options = {"score": config.score, "overlap": config.overlap, "merge": config.merge}
        return config.model, config.data, options
    of_run = config_of_run(model) if data is None and isinstance(model, str | Path) else None
    if of_run is not None and not any(name.startswith("data__val") for name in overrides):
        return model, read_config(of_run, **overrides).data, {}
    if data is None:
        return model, data_config(**overrides), {}
    if isinstance(data, RunConfig | str | Path):
        return model, read_config(data, **overrides).data, {}
    if overrides:
        raise ConfigError(f"The data set is open already; leave {', '.join(overrides)} out.")
    if not isinstance(data, Data) and not hasattr(data, "categories"):
        raise ConfigError(f"The data cannot be {shown(data)}; give a config, its name or file, or a reader.")
    return model, data, {}


def open_validation(data: Data, segmenter: Segmenter) -> Reader:
    """The validation set of a config with a model's classes, which are found in it by name.

    Raises:
        ConfigError, DataError: as `open_data`.
    """
    if data.val is None:
        raise ConfigError("The config has no validation data; give it with data.val.images and its truth.")
    if data.val.labels is not None and data.val.categories is None and data.categories is None:
        # The class table that the model was made for says what the values of label PNGs mean.
        table = entry(segmenter.name).categories
        if load_categories(table) == segmenter.categories:
            data = data.model_copy(update={"categories": table})
    return open_data(data, data.val, segmenter.categories)


def figures(
    segmenter: Segmenter,
    dataset: Reader,
    linked: bool = True,
    left_out: Collection[int] = (),
    details: dict[str, Details] | None = None,
) -> dict[str, Any]:
    """What `evaluate` returns.

    Args:
        left_out: images that are not judged; with one of them, its clip is not.
        details: gets what a report shows beside each part of the result, of the whole set in the first process.
    """
    check_truth(segmenter.name, segmenter.task, dataset)
    own, learned = ([(row.id, row.name) for row in one.categories] for one in (dataset, segmenter))
    if own != learned:
        raise ConfigError(
            f"The data set has other classes ({len(own)}) than the model '{segmenter.name}' ({len(learned)}), or "
            "numbers them otherwise; open it with the model's, categories=segmenter.categories."
        )
    lost = NotFinite()
    if segmenter.task == "panoptic" and isinstance(dataset, ClipReader):
        return evaluate_tracks(segmenter, dataset, linked, left_out, lost, details) | lost.result()
    if not linked:
        raise ConfigError("The option unlinked is for panoptic models on clips, which are tracked; leave it out.")
    if isinstance(dataset, YoutubeVis):
        return evaluate_clips(segmenter, dataset, left_out, lost) | lost.result()
    metric: Any = _instances if isinstance(dataset, CocoInstances) else _pixels
    return {**metric(segmenter, dataset, left_out, lost, details), **lost.result()}


def check_truth(model: str, task: str, dataset: Reader) -> None:
    """Raises `ConfigError` for a data set with another kind of truth than a model of this task needs to be judged."""
    kind = next((task for form, task in _ONLY.items() if isinstance(dataset, form)), None)
    if kind == task or (kind is None and task in ("panoptic", "semantic")):
        return
    panoptic = "COCO panoptic (data.val.json and data.val.masks)"
    clips = "clips (data.val.format, such as step, or data.val.labels and data.val.instances)"
    needed = {
        "instance": "COCO instances (data.val.json alone)",
        "panoptic": f"{panoptic}, label PNGs (data.val.labels) or {clips}",
        "semantic": f"label PNGs (data.val.labels), {panoptic} or {clips}",
        "clip": "clips with the objects of YouTube-VIS (data.val.format=youtube-vis and data.val.split)",
    }
    what = f"The model '{model}' is for {task} segmentation"
    if task == "clip":
        what = f"The model '{model}' looks at all frames of a clip at once, not at single images"
    raise ConfigError(f"{what}; to evaluate it, give {needed[task]}.")


def _pixels(
    segmenter: Segmenter,
    dataset: Reader,
    left_out: Collection[int],
    lost: NotFinite,
    details: dict[str, Details] | None,
) -> dict[str, Any]:
    """IoU of classes and, where the truth has segments, panoptic quality, in memory that does not grow.

    The semantic prediction of a panoptic model is the class of each pixel's segment; a pixel that it left void is
    missed.
    """
    categories = dataset.categories
    label_of = {category.id: label for label, category in enumerate(categories)}
    quality, matrix = PanopticQuality(categories), ConfusionMatrix(len(categories))
    panoptic = segmenter.task == "panoptic" and not _tells_classes_alone(dataset)
    shown = Details()
    shown.open(categories)
    for index in _share(dataset, left_out):
        sample = dataset.read(index)
        found = lost.segment(segmenter, sample.image, sample.name)
        draw = partial(draw_pair, sample, found, categories)
        if panoptic:
            counted = _void_as_first_person(segmenter, found)
            sides = (sample.id_map, sample.segments), (counted.id_map, counted.segments)
            matches = find_matches(*quality.tabulate(*sides, sample.name))
            quality.counts += matches.counts(len(categories))
            if details is not None:
                shown.add_segments(sample.name, matches, scores_of(counted.segments), draw)
        image = ConfusionMatrix(len(categories))
        image.add(
            _label_map(sample.id_map, {s.id: s.label for s in sample.segments}),
            _label_map(found.id_map, {s.id: label_of[s.category] for s in found.segments}),
            name=sample.name,
        )
        matrix.merge(image)
        if details is not None and not panoptic:
            shown.add_pixels(sample.name, image.counts, draw)
    shares = gather_objects((quality.counts, matrix.counts))
    quality.counts, matrix.counts = (np.sum(parts, axis=0) for parts in zip(*shares, strict=True))
    if details is not None:
        details["panoptic" if panoptic else "semantic"] = merged(gather_objects(shown))
        if panoptic:
            details["semantic"] = of_matrix(categories, matrix.counts)
    semantic = semantic_result(matrix, {category.id: category.name for category in categories})
    if tuple(categories) == load_categories("ade20k"):
        semantic |= ade20k_means(matrix)
    return {"panoptic": quality.result(), "semantic": semantic} if panoptic else {"semantic": semantic}


def _tells_classes_alone(dataset: Reader) -> bool:
    """Whether a set, or what a mixture is made of, tells no objects apart, so that nothing is known of PQ."""
    readers = [part.reader for part in dataset.parts] if isinstance(dataset, Mixture) else [dataset]
    return any(isinstance(reader, LabelFolder) for reader in readers)


def _void_as_first_person(segmenter: Segmenter, found: Segmentation) -> Segmentation:
    """What K-Net's evaluation counts where a model is to compute as the original does, see `knet.load`.

    It numbers segments from 0 and writes label + 1000 x number, so the best segment gets the value of void if it is of
    the class 0 (COCO: a person), and all void pixels with it.
    """
    if not segmenter.compatible or segmenter.rules.merge != "sorted" or segmenter.rules.thing_candidates is not None:
        return found
    best = next(iter(found.segments), None)
    return found if best is None or best.category != found.categories[0].id else void_as(found, best)


def _instances(
    segmenter: Segmenter,
    dataset: CocoInstances,
    left_out: Collection[int],
    lost: NotFinite,
    details: dict[str, Details] | None,
) -> dict[str, Any]:
    """Mask AP against the JSON file itself. Packed masks are kept until the end: some 20 KB an image."""
    rows: list[dict[str, Any]] = []
    id_of = {category.id: dataset.category_ids[label] for label, category in enumerate(dataset.categories)}
    for index in _share(dataset, left_out):
        found = lost.segment(segmenter, dataset.read_image(index), dataset.name(index))
        rows += coco_instance_results(
            dataset.image_id(index),
            map(found.rle, found.segments),
            [id_of[segment.category] for segment in found.segments],
            [segment.score for segment in found.segments],
        )
    everything = list(chain.from_iterable(gather_objects(rows)))
    truth = without(dataset.truth, "image", map(dataset.image_id, left_out)) if left_out else dataset.truth
    shown = None if details is None else Details()
    result = mask_ap(truth, everything, classes={id_of[row.id]: row.name for row in dataset.categories}, details=shown)
    if details is not None and shown is not None:
        details["instance"] = shown
        if rank() == 0:  # of a few images alone: to keep all results would take memory
            places = {dataset.name(index): index for index in range(len(dataset))}
            shown.draw(lambda name: _draw(segmenter, dataset, places[name]))
    return {"instance": result}


def _draw(segmenter: Segmenter, dataset: CocoInstances, index: int) -> bytes:
    sample = dataset.read(index)
    return draw_pair(sample, NotFinite().segment(segmenter, sample.image, sample.name), dataset.categories)


def _share(dataset: Reader, left_out: Collection[int]) -> Iterator[int]:
    """The images of this process, with a progress bar in the first."""
    share = [index for index in range(len(dataset)) if index not in left_out][rank() :: world()]
    return iter(tqdm(share, desc="evaluating", unit="image", disable=rank() > 0 or None, leave=False))


def _label_map(id_map: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """(H,W) ids -> (H,W) int64 labels, -1 where there is no segment"""
    ids, inverse = np.unique(id_map, return_inverse=True)
    return np.array([labels.get(i, -1) for i in ids.tolist()])[inverse].reshape(id_map.shape)
