"""Where the files of Cityscapes and Mapillary Vistas lie after unpacking the downloads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from knet.data.files.io import list_images
from knet.errors import DataError, shown
from knet.files import is_dir, is_file

CITYSCAPES_SPLITS = ("train", "val")
MAPILLARY_SPLITS = ("training", "validation")

_CITYSCAPES_SOURCE = (
    "gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip of cityscapes-dataset.com hold them; unpack both there"
)
_MAPILLARY_SOURCE = "the zip file of mapillary.com/dataset/vistas holds them; unpack it there"
# Version, config file, folder of labels below a split, panoptic JSON: the v1.2 zip, then both parts of the v2.0 zip.
_MAPILLARY_FORMS = (
    ("1.2", "config.json", "", "panoptic_2018.json"),
    ("1.2", "config_v1.2.json", "v1.2", "panoptic_2018.json"),
    ("2.0", "config_v2.0.json", "v2.0", "panoptic_2020.json"),
)


@dataclass(frozen=True, slots=True)
class RootSplit:
    """One split of a data set: its images, its raw instance PNGs, and its panoptic form, which may not be there yet.

    The names of an image and of its instance PNG differ in their `image_ending` and `label_ending` alone.
    """

    name: str
    images: Path
    labels: Path
    json: Path
    masks: Path
    image_ending: str
    label_ending: str


@dataclass(frozen=True, slots=True)
class MapillaryRoot:
    """A Mapillary Vistas download: the version found, the file that lists its classes, its splits."""

    version: str
    config: Path
    splits: list[RootSplit]

    @property
    def table(self) -> Path:
        """The path of its class table: knet_categories.json, or knet_categories_v2.0.json beside config_v2.0.json."""
        return self.config.with_name(f"knet_categories{self.config.stem.removeprefix('config')}.json")


def find_cityscapes(
    root: str | Path, splits: Sequence[str] = CITYSCAPES_SPLITS, train_ids: bool = False
) -> list[RootSplit]:
    """Finds the splits of Cityscapes in the folder that holds gtFine and leftImg8bit.

    With `train_ids` their panoptic form is that of category ids 0..18 (cityscapes_panoptic_val_trainId).
    """
    root = Path(root)
    _check_splits("Cityscapes", splits, CITYSCAPES_SPLITS, "test")
    found = []
    for split in splits:
        panoptic = root / "gtFine" / (f"cityscapes_panoptic_{split}" + ("_trainId" if train_ids else ""))
        images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
        endings = "_leftImg8bit.png", "_gtFine_instanceIds.png"
        found.append(RootSplit(split, images, labels, panoptic.with_suffix(".json"), panoptic, *endings))
    _require(root, [folder for split in found for folder in (split.labels, split.images)], _CITYSCAPES_SOURCE)
    return found


def find_mapillary(
    root: str | Path, splits: Sequence[str] = MAPILLARY_SPLITS, version: str | None = None
) -> MapillaryRoot:
    """Finds the splits of Mapillary Vistas in the folder that holds config.json or config_v2.0.json.

    `version` is "1.2" or "2.0"; None takes 1.2 where there is a choice, since the published models know its classes.
    """
    root = Path(root)
    _check_splits("Mapillary", splits, MAPILLARY_SPLITS, "testing")
    forms = [form for form in _MAPILLARY_FORMS if version in (None, form[0])]
    if not forms:
        raise DataError(f"There is no Mapillary Vistas version {shown(version)} here; choose 1.2 or 2.0.")
    present = [form for form in forms if is_file(root / form[1])]
    if not present:
        names = " or ".join(form[1] for form in forms)
        raise DataError(f"{root} lacks {names}, which lists the classes of Mapillary Vistas; {_MAPILLARY_SOURCE}.")
    version, config, below, json = present[0]
    found = []
    for split in splits:
        labels = root / split / below / "instances"
        masks = root / split / below / "panoptic"
        found.append(RootSplit(split, root / split / "images", labels, masks / json, masks, ".jpg", ".png"))
    _require(root, [folder for split in found for folder in (split.images, split.labels)], _MAPILLARY_SOURCE)
    return MapillaryRoot(version, root / config, found)


def label_stems(split: RootSplit) -> dict[str, str]:
    """The raw labels of a split: image id (city_000000_000019, or Mapillary's name) -> path in the labels folder."""
    ending = split.label_ending
    names = [name for name in list_images(split.labels) if name.endswith(ending)]
    return {PurePosixPath(name).name.removesuffix(ending): name for name in names}


def unpaired_files(split: RootSplit) -> tuple[list[str], list[str]]:
    """Labels of a split without an image, and images without a label: paths relative to their folders, sorted."""
    images, ending = list_images(split.images), split.image_ending
    of_images = {name.removesuffix(ending): name for name in images if name.endswith(ending)}
    of_labels = {name.removesuffix(split.label_ending): name for name in label_stems(split).values()}
    lonely = sorted(of_labels.keys() - of_images.keys()), sorted(of_images.keys() - of_labels.keys())
    return [of_labels[stem] for stem in lonely[0]], [of_images[stem] for stem in lonely[1]]


def _check_splits(name: str, splits: Sequence[str], known: Sequence[str], unlabelled: str) -> None:
    wrong = next((split for split in splits if split not in known), None)
    if wrong is not None:
        choice = f"choose from {', '.join(known)} ({unlabelled} has no labels)"
        raise DataError(f"{name} has no labelled split {shown(wrong)}; {choice}.")


def _require(root: Path, folders: Sequence[Path], source: str) -> None:
    missing = [PurePosixPath(folder.relative_to(root)).as_posix() for folder in folders if not is_dir(folder)]
    if not is_dir(root):
        raise DataError(f"The folder {root} does not exist; give the folder that holds the data set ({source}).")
    if missing:
        raise DataError(f"{root} lacks {', '.join(missing)}; {source}, or leave a split out with --splits.")
