"""Every model by name: how it is built, and the settings that its official weights need."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from knet.calls import named_options
from knet.errors import ConfigError, did_you_mean, enough_memory, no_such_model, require, shown
from knet.models.arguments import check_arguments, known_arguments
from knet.models.clip import ClipKNet
from knet.models.image import KNet
from knet.models.network import Network
from knet.models.realtime import RTKNet
from knet.models.semantic import KNetSemantic
from knet.models.video import RTVideoKNet, VideoKNet
from knet.structures import Preprocessing

Task = Literal["panoptic", "instance", "semantic", "clip"]  # clip: objects of whole videos
# How the masks of a panoptic model share the pixels: by RT-K-Net's optimised post-processing (Algorithm 1), at the size
# of the network's input, or by K-Net's, which goes through the masks by score at the size of the image.
Merge = Literal["optimised", "sorted"]
Tracker = Literal["embeddings", "overlap"]

_COCO_IMAGES = Preprocessing(short_edge=800, max_edge=1333, antialias=False)
_SLIM = {"width": 32, "head_width": 64, "injection": (True, True)}
# For processors without a GPU. EfficientNet-Lite0's weights from ImageNet saw values from -1 to 1; the first batch norm
# takes up the difference in training.
_LITE: dict[str, Any] = {
    "backbone": "timm/tf_efficientnet_lite0",
    "kernels": 64,
    "stages": 3,
    "channels": 128,
    "hidden": 512,
    "drop_path": 0.1,
    "stride": 4,
}
# Video models see frames as they are stored.
_KITTI_FRAMES = Preprocessing(short_edge=375, max_edge=1242, antialias=False, resize=False)
_CITYSCAPES_FRAMES = Preprocessing(short_edge=1024, max_edge=2048, antialias=False, resize=False)
_VIPSEG_FRAMES = Preprocessing(short_edge=720, max_edge=1280, antialias=False, resize=False)
_STEP = {"classes": 19, "stuff": tuple(range(2, 19))}  # person, car, then stuff
_VIDEO_MERGE: dict[str, Any] = {"merge": "sorted", "thing_candidates": 100}


@dataclass(frozen=True)
class ZooEntry:
    """A model's row in the zoo.

    Attributes:
        build, arguments: `build(**arguments)` makes the network.
        categories: name of the class table.
        preprocessing, score, overlap: the published test settings.
        about: a line for `knet models`.
        task: whether results are segments that share the pixels, objects that may overlap, or classes.
        merge: how the masks of a panoptic model share the pixels.
        thing_candidates: how many of the best combinations of a kernel and a thing class take part (Video K-Net's
            code); None: all.
        regions: if not 0, objects of its training data are connected regions of a class, so masks are cut into such,
            and those of fewer pixels than this, at the size of the network's input, are left out.
        stretches_padding: whether Algorithm 1 stretches masks over the image together with their padding, which moves
            them. The official code does, and published figures include it.
        tracker: of a model with embeddings: Video K-Net's, which compares embeddings alone, or overlap, where
            embeddings decide what is unclear and recognise what does not overlap.
        published: figures as the paper states them.
        official: whether the authors published weights.
        bundled: the file of weights that comes with the package, None if there is none.
    """

    build: Callable[..., Network]
    arguments: dict[str, Any]
    categories: str
    preprocessing: Preprocessing
    about: str
    score: float = 0.3
    overlap: float = 0.6
    task: Task = "panoptic"
    merge: Merge = "optimised"
    thing_candidates: int | None = None
    regions: int = 0
    stretches_padding: bool = False
    tracker: Tracker = "embeddings"
    published: dict[str, float] = field(default_factory=dict)
    official: bool = True
    bundled: str | None = None


def _coco_panoptic(backbone: str, title: str, published: dict[str, float]) -> ZooEntry:
    return ZooEntry(
        KNet,
        {"classes": 133, "stuff": tuple(range(80, 133)), "backbone": backbone},
        "coco_panoptic",
        _COCO_IMAGES,
        f"K-Net, {title}: panoptic segmentation of everyday scenes",
        merge="sorted",
        published=published,
    )


def _coco_instance(backbone: str, title: str, published: dict[str, float]) -> ZooEntry:
    return ZooEntry(
        KNet,
        {"classes": 80, "backbone": backbone},
        "coco_instance",
        _COCO_IMAGES,
        f"K-Net, {title}: instance segmentation of everyday scenes",
        score=0.0,  # mask AP ranks all objects itself
        overlap=0.0,
        task="instance",
        published=published,
    )


def _step(
    build: Callable[..., Network], arguments: dict[str, Any], about: str, frames: Preprocessing, **more: Any
) -> ZooEntry:
    """Streets in KITTI-STEP's classes. The published score threshold is lower for videos than for images."""
    score = 0.25 if frames is _KITTI_FRAMES else 0.3
    return ZooEntry(build, arguments, "kitti_step", frames, about, score, **more)


def _image_step(title: str, **arguments: Any) -> ZooEntry:
    about = f"K-Net, {title}, from which the video model starts: people, cars and 17 classes of stuff in streets"
    return _step(KNet, {**_STEP, **arguments}, about, _CITYSCAPES_FRAMES, **_VIDEO_MERGE)


def _video_step(title: str, published: dict[str, float], **arguments: Any) -> ZooEntry:
    about = f"Video K-Net, {title}: video panoptic segmentation of streets"
    return _step(VideoKNet, {**_STEP, **arguments}, about, _KITTI_FRAMES, published=published, **_VIDEO_MERGE)


def _lite(classes: int, categories: str, short: int, long: int, what: str, **more: Any) -> ZooEntry:
    return ZooEntry(
        RTKNet,
        {**_LITE, "classes": classes},
        categories,
        Preprocessing(short_edge=short, max_edge=long),
        about=f"RT-K-Net on EfficientNet-Lite0, for processors without a GPU: {what}",
        official=False,
        **more,
    )


def _rt_video(title: str, frames: Preprocessing, **arguments: Any) -> ZooEntry:
    about = f"RT-K-Net, {title}, linked from frame to frame: real-time video panoptic segmentation of streets"
    return _step(RTVideoKNet, {"classes": 19, **arguments}, about, frames, tracker="overlap", official=False)


def _vipseg(backbone: str, title: str, published: dict[str, float], **arguments: Any) -> ZooEntry:
    """`published`: measured with the official weights by the authors of DEVA."""
    return ZooEntry(
        VideoKNet,
        {"classes": 124, "stuff": tuple(range(58, 124)), "backbone": backbone, **arguments},
        "vipseg",
        _VIPSEG_FRAMES,
        f"Video K-Net, {title}: video panoptic segmentation of everyday scenes",
        score=0.25,
        published=published,
        **_VIDEO_MERGE,
    )


def _ade20k(
    head: str, backbone: str, title: str, paper: float, retrained: tuple[float, float], short: int = 512, **more: Any
) -> ZooEntry:
    """`paper` is from K-Net's own table, `retrained` from mmsegmentation's, whose weights are the published ones."""
    single, flipped = retrained
    return ZooEntry(
        KNetSemantic,
        {"classes": 150, "head": head, "backbone": backbone, **more},
        "ade20k",
        Preprocessing(short_edge=short, max_edge=2048, antialias=False, divisor=1),
        f"K-Net, {title}: semantic segmentation of scenes in 150 classes",
        score=0.0,  # every pixel gets its best class
        overlap=0.0,
        task="semantic",
        published={"val mIoU": single, "val mIoU (ms+flip)": flipped, "val mIoU (K-Net's repository)": paper},
    )


def _youtube_vis(backbone: str, title: str, published: dict[str, float], **more: Any) -> ZooEntry:
    return ZooEntry(
        ClipKNet,
        {"classes": 40, "backbone": backbone, **more},
        "youtube_vis",
        Preprocessing(short_edge=360, max_edge=640, antialias=False),
        f"Video K-Net, {title}: the objects of a whole clip and their masks in all frames",
        score=0.0,  # AP ranks all objects itself
        overlap=0.0,
        task="clip",
        published=published,
    )


ZOO: dict[str, ZooEntry] = {
    "rtknet-cityscapes": ZooEntry(
        RTKNet,
        {"classes": 19},
        "cityscapes",
        Preprocessing(short_edge=1024, max_edge=2048),
        "RT-K-Net, RTFormer base: real-time panoptic segmentation of streets",
        published={"val PQ": 60.2},
    ),
    "rtknet-mapillary": ZooEntry(
        RTKNet,
        {"classes": 65},
        "mapillary",
        Preprocessing(short_edge=2048, max_edge=2048),
        "RT-K-Net, RTFormer base, 65 classes of streets all over the world",
        score=0.0,
        stretches_padding=True,
        published={"val PQ": 33.2},
    ),
    "rtknet-slim-cityscapes": ZooEntry(
        RTKNet,
        {"classes": 19, **_SLIM},
        "cityscapes",
        Preprocessing(short_edge=1024, max_edge=2048),
        "RT-K-Net with RTFormer slim: half the width, for small machines",
        official=False,
    ),
    "rtknet-slim-camvid": ZooEntry(
        RTKNet,
        {"classes": 11, "kernels": 64, **_SLIM},
        "camvid",
        Preprocessing(short_edge=384, max_edge=768),
        "small street model trained by this project on CamVid; comes with the package (non-commercial data)",
        regions=100,  # its data has smaller ones, but those it finds are more often wrong than right
        official=False,
    ),
    "rtknet-lite-street": _lite(
        11, "camvid", 416, 832, "streets in CamVid's classes", regions=150, bundled="rtknet-lite-street.safetensors"
    ),
    "rtknet-lite-cityscapes": _lite(19, "cityscapes", 512, 1024, "streets in Cityscapes' classes"),
    "rtknet-lite-coco": _lite(133, "coco_panoptic", 480, 800, "everyday scenes"),
    "rtknet-lite-coco-instance": _lite(
        80, "coco_instance", 480, 800, "objects of everyday scenes", task="instance", score=0.0, overlap=0.0
    ),
    "knet-r50-cityscapes-panoptic": ZooEntry(
        KNet,
        {"classes": 19, "stuff": tuple(range(11))},
        "cityscapes",
        Preprocessing(short_edge=1024, max_edge=2048),
        "K-Net, ResNet-50: the baseline that RT-K-Net started from",
        merge="sorted",
        published={"val PQ": 56.9},
        official=False,
    ),
    "knet-r50-coco-panoptic": _coco_panoptic("r50", "ResNet-50", {"val PQ (1x)": 44.3, "val PQ (3x)": 47.1}),
    "knet-r101-coco-panoptic": _coco_panoptic("r101", "ResNet-101", {"val PQ (3x)": 48.4}),
    "knet-r101dcn-coco-panoptic": _coco_panoptic("r101dcn", "deformable ResNet-101", {"val PQ (3x)": 49.6}),
    "knet-swinl-coco-panoptic": _coco_panoptic("swinl", "Swin-L", {"val PQ (3x)": 54.6, "test-dev PQ (3x)": 55.2}),
    "knet-r50-coco-instance": _coco_instance("r50", "ResNet-50", {"val mask AP (1x)": 34.0, "val mask AP (3x)": 37.8}),
    "knet-r101-coco-instance": _coco_instance("r101", "ResNet-101", {"val mask AP (3x)": 39.2}),
    "knet-r101dcn-coco-instance": _coco_instance("r101dcn", "deformable ResNet-101", {"val mask AP (3x)": 40.5}),
    "knet-fcn-r50-ade20k": _ade20k("fcn", "r50-dilated", "FCN on ResNet-50", 43.3, (43.60, 45.12)),
    "knet-pspnet-r50-ade20k": _ade20k("pspnet", "r50-dilated", "PSPNet on ResNet-50", 43.9, (44.18, 45.58)),
    "knet-deeplabv3-r50-ade20k": _ade20k("deeplabv3", "r50-dilated", "DeepLabV3 on ResNet-50", 44.6, (45.06, 46.11)),
    "knet-upernet-r50-ade20k": _ade20k("upernet", "r50-deep", "UPerNet on ResNet-50", 43.6, (43.45, 44.07)),
    "knet-upernet-swint-ade20k": _ade20k("upernet", "swint", "UPerNet on Swin-T", 45.4, (45.84, 46.27), drop_path=0.3),
    "knet-upernet-swinl-ade20k": _ade20k("upernet", "swinl", "UPerNet on Swin-L", 52.0, (52.05, 53.24), drop_path=0.3),
    "knet-upernet-swinl640-ade20k": _ade20k(
        "upernet", "swinl", "UPerNet on Swin-L, larger images", 52.7, (52.21, 53.34), short=640, drop_path=0.4
    ),
    "knet-r50-cityscapes-step": _image_step("ResNet-50", backbone="r50"),
    "knet-swinb-cityscapes-step": _image_step("Swin-B", backbone="swinb", drop_path=0.3),
    "video-knet-r50-kitti-step": _video_step(
        "ResNet-50",
        # From the paper's ablation, without its last step, the fusion, which the published configuration lacks.
        {"val STQ": 70.2, "val AQ": 71.2, "val SQ": 69.7, "val STQ (with fusion)": 70.9},
        backbone="r50",
    ),
    "video-knet-swinb-kitti-step": _video_step(
        "Swin-B", {}, backbone="swinb", drop_path=0.3, link="update", fusion=True
    ),
    "video-knet-r50-vipseg": _vipseg("r50", "ResNet-50", {"val VPQ (1 frame)": 35.4, "val STQ": 33.7}),
    "video-knet-swinb-vipseg": _vipseg("swinb", "Swin-B", {"val VPQ (1 frame)": 49.8, "val STQ": 45.2}, drop_path=0.3),
    "rt-video-knet-kitti-step": _rt_video("RTFormer base", _KITTI_FRAMES),
    "rt-video-knet-slim-kitti-step": _rt_video("RTFormer slim", _KITTI_FRAMES, **_SLIM),
    "rt-video-knet-lite-kitti-step": _rt_video("EfficientNet-Lite0", _KITTI_FRAMES, **_LITE),
    "rt-video-knet-cityscapes-step": _rt_video("RTFormer base", _CITYSCAPES_FRAMES),
    "rt-video-knet-slim-cityscapes-step": _rt_video("RTFormer slim", _CITYSCAPES_FRAMES, **_SLIM),
    "video-knet-r50-youtube-vis": _youtube_vis("r50", "ResNet-50", {"val AP": 40.5, "val AP50": 63.5}),
    "video-knet-swinb-youtube-vis": _youtube_vis("swinb", "Swin-B", {"val AP": 54.1}, drop_path=0.3),
}


@named_options
def models(pattern: str = "*") -> list[str]:
    """The names of all models, or of those that match a pattern with * and ?."""
    require(str, "a pattern such as '*coco*'", pattern=pattern)
    return fnmatch.filter(ZOO, pattern)


def entry(name: str) -> ZooEntry:
    """The zoo's row of a model."""
    require(str, "the name of a model", model=name)
    if name not in ZOO:
        raise no_such_model(name, ZOO)
    return ZOO[name]


def create(name: str, **arguments: Any) -> Network:
    """A network with random weights, in training mode.

    Args:
        name: one of `knet.models()`.
        arguments: constructor arguments that replace the model's own, such as `classes=3` or `kernels=50`.

    Raises:
        ConfigError: there is no such model, its network lacks one of the arguments, or cannot be built with its value.
    """
    row = entry(name)
    try:
        check_arguments(row.build, arguments)
        with enough_memory(f"the model '{name}' with {shown(arguments)}", "take smaller arguments", ConfigError):
            return row.build(**{**row.arguments, **arguments})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] == "extra_forbidden":
            known = list(known_arguments(row.build))
            hint = did_you_mean(fault["loc"][0], known, f"there are: {', '.join(known)}.")
            raise ConfigError(f"The model '{name}' has no argument {shown(fault['loc'][0])}; {hint}") from error
        value = f"{'.'.join(map(str, fault['loc']))} = {shown(fault['input'])}"
        raise ConfigError(f"The model '{name}' cannot have {value}: {fault['msg'].lower()}.") from error
    except TypeError as error:
        raise ConfigError(f"Model '{name}' cannot be built with {sorted(arguments)}: {error}.") from error
