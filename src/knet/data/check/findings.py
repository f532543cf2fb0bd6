"""What a check of a data set can find, with fixes, and the report."""

from dataclasses import asdict, dataclass
from typing import Any

EXAMPLES = 3

# kind: (an error?, what is wrong, what to do)
KINDS: dict[str, tuple[bool, str, str]] = {
    "json": (True, "the panoptic JSON cannot be used", "create it again"),
    "row": (True, "rows of the JSON lack id or file_name", "create the JSON again"),
    "image id twice": (True, "image ids are listed twice", "keep one row of each"),
    "no annotation": (True, "images have no annotation", "add it or remove the image's row"),
    "no image row": (True, "annotations have no image", "add its row or remove the annotation"),
    "no segments_info": (True, "annotations have no segments_info", "use a panoptic JSON; see knet data from-coco"),
    "segment row": (True, "segments have no whole id from 1 to 16777215", "number the segments of each image anew"),
    "segment twice": (True, "segment ids are listed twice in an image", "give each segment an id of its own"),
    "unknown category": (True, "segments have a category that the class table lacks", "choose the data set's own"),
    "other classes": (True, "the class table has other classes than the JSON", "choose the data set's own"),
    "image missing": (True, "images that the JSON names do not exist", "copy them to the images folder"),
    "image ambiguous": (
        True,
        "names of the JSON fit several images, or several names one",
        "give the JSON relative paths",
    ),
    "image unreadable": (True, "images cannot be read", "copy them again"),
    "mask missing": (True, "panoptic PNGs that the JSON names do not exist", "copy them to the masks folder"),
    "mask unreadable": (True, "panoptic PNGs cannot be read as 8-bit RGB", "copy or create them again"),
    "blue first": (True, "panoptic PNGs have red and blue exchanged", "write them as RGB; OpenCV's imwrite takes BGR"),
    "image size": (True, "images differ in size from their labels", "use the images that the labels were made for"),
    "json size": (True, "panoptic PNGs have another size than the JSON says", "use the PNGs that belong to the JSON"),
    "not in json": (True, "segments of the PNG are not in the JSON", "use the PNGs that belong to the JSON"),
    "not in png": (True, "segments of the JSON are not in the PNG", "use the PNGs that belong to the JSON"),
    "mask damaged": (True, "masks of objects cannot be read", "export them again"),
    "label without image": (True, "raw labels have no image", "copy the images again or remove the labels"),
    "label not prepared": (True, "raw labels are not in the panoptic JSON", "run knet data prepare with --overwrite"),
    "frame": (True, "frames cannot be used", "copy them again, or choose the data set's own class table"),
    "nothing at all": (True, "no image has a segment that is no crowd", "label objects, with iscrowd 0"),
    "gap": (False, "frames are missing in the middle of clips", "copy them, or go on without"),
    "same file twice": (False, "image files stand in several rows", "keep one row of each"),
    "same picture": (False, "image files have equal content", "remove one, above all if splits share it"),
    "image unused": (False, "images are not in the JSON", "label them or ignore this"),
    "mask unused": (False, "panoptic PNGs are not in the JSON", "remove them or create the JSON again"),
    "area": (False, "segments have another area than the JSON says", "create the JSON again if a tool reads its areas"),
    "nothing to learn": (False, "images have no segment, or only crowds", "label them or remove them"),
    "no mask": (False, "objects have no mask and are left out", "draw polygons; a box is not enough"),
    "mask empty": (False, "objects have a mask without a pixel and are left out", "remove or draw them again"),
    "mask fractions": (False, "objects have polygons from 0 to 1 and are left out", "multiply by width and height"),
    "extent": (False, "objects have an area or a box that their mask has not", "export anew; the mask counts"),
    "too many": (False, "images have more segments than kernels", "give arguments.kernels; the rest is never learned"),
    "image flat": (False, "images are of one value, or nearly so", "stretch deep pictures to 0..65535 or 0..1"),
    "image elsewhere": (False, "images lie in another folder than the JSON says", "correct file_name if they differ"),
    "thing differs": (False, "classes are things here and stuff there (JSON, table)", "correct one of them"),
    "class absent": (False, "classes have no segment", "expect no result for them, or add images"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, `count` times, with at most three `examples`."""

    kind: str
    error: bool
    count: int
    examples: list[str]

    @property
    def line(self) -> str:
        """The finding with its fix, as one line of text."""
        _, what, fix = KINDS[self.kind]
        rest = self.count - len(self.examples)
        more = f" and {rest} more" if rest else ""
        counted = f" ({self.count})" if self.kind not in ("json", "other classes") else ""
        return f"{'error' if self.error else 'warning'}: {what}{counted}: {', '.join(self.examples)}{more}; {fix}"


@dataclass(slots=True)
class ClassCount:
    """How often a class occurs.

    Attributes:
        images: those with a segment of the class that is no crowd.
        segments: without `crowds`.
        share: of all labelled pixels, 0 to 1.
    """

    id: int
    name: str
    thing: bool
    images: int = 0
    segments: int = 0
    crowds: int = 0
    pixels: int = 0
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a data set holds and what is wrong with it.

    Attributes:
        void_share: share of the pixels without a segment, 0 to 1.
        segment_ids, category_ids: the smallest and the largest, None where there is none.
        sizes: (height, width) of the images of smallest and largest area.
    """

    name: str
    images: int
    findings: list[Finding]
    classes: list[ClassCount]
    void_share: float
    segment_ids: tuple[int, int] | None
    category_ids: tuple[int, int] | None
    sizes: tuple[tuple[int, int], tuple[int, int]] | None

    @property
    def errors(self) -> int:
        """The number of findings that keep the data set from being used."""
        return sum(finding.error for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, the findings with their lines."""
        plain = asdict(self)
        plain["findings"] = [{**asdict(finding), "line": finding.line} for finding in self.findings]
        return {**plain, "errors": self.errors}


class Notes:
    """Collects findings in bounded memory: the number and the first examples of each of `KINDS`."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(KINDS, 0)
        self._examples: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, example: object) -> None:
        """Counts one more of a kind."""
        self._counts[kind] += 1
        if len(self._examples[kind]) < EXAMPLES:
            self._examples[kind].append(str(example))

    def findings(self) -> list[Finding]:
        """All that was found, errors first."""
        return [
            Finding(kind, KINDS[kind][0], count, self._examples[kind]) for kind, count in self._counts.items() if count
        ]
