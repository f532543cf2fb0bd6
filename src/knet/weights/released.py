"""The weights that the authors of the papers published: where they are, and how to tell that they arrived whole."""

from dataclasses import dataclass

_KNET = "https://download.openmmlab.com/mim-example/knet/det/knet"
_ADE20K = "https://download.openmmlab.com/mmsegmentation/v0.5/knet"
_KNET_PAGE = "https://github.com/ZwwWayne/K-Net"
_VIDEO_PAGE = "https://github.com/lxtGH/Video-K-Net"
_APACHE, _SHARE_ALIKE = "Apache-2.0", "CC BY-NC-SA 4.0 (not for commercial use)"


@dataclass(frozen=True)
class Released:
    """Published weights.

    Attributes:
        page: where the authors say what they are.
        licence: of the weights, as the authors state it.
        url: the file itself; "" where no program can fetch it.
        sha256: hexadecimal digits of the file's SHA-256, or the first of them; "" if nobody published any.
    """

    page: str
    licence: str
    url: str = ""
    sha256: str = ""


def _openmmlab(folder: str, name: str, end: str, page: str = _KNET_PAGE) -> Released:
    """OpenMMLab's file names end in the first eight digits of their SHA-256."""
    return Released(page, _APACHE, f"{folder}/{name}/{name}_{end}.pth", end.rpartition("-")[2])


def _ade20k(head: str, end: str) -> Released:
    page = "https://github.com/open-mmlab/mmsegmentation/tree/main/configs/knet"
    return _openmmlab(_ADE20K, f"knet_s3_{head}_adamw_80k_ade20k", end, page)


def _drive(file: str) -> Released:
    address = f"https://drive.google.com/file/d/{file}/view"
    return Released("https://github.com/uulm-mrm/RT-K-Net", _SHARE_ALIKE, address)


_BAIDU = Released(_VIDEO_PAGE, "as its repository states")

RELEASED: dict[str, Released] = {
    "rtknet-cityscapes": _drive("1YkoaAMw1lLIckEOYss4qf6EQHKHqoUD2"),
    "rtknet-mapillary": _drive("1TF5HULgI9f2jHsItAd7dKNF-JJTRl-Bf"),
    "knet-r50-coco-panoptic": _openmmlab(_KNET, "knet_s3_r50_fpn_ms-3x_coco-panoptic", "20211017_054613-4375b8be"),
    "knet-r101-coco-panoptic": _openmmlab(_KNET, "knet_s3_r101_fpn_ms-3x_coco-panoptic", "20211017_054501-9c600b0c"),
    "knet-r101dcn-coco-panoptic": _openmmlab(
        _KNET, "knet_s3_r101_dcn-c3-c5_fpn_ms-3x_coco-panoptic", "20211019_191549-6d13fab7"
    ),
    "knet-swinl-coco-panoptic": _openmmlab(
        _KNET, "knet_s3_swin-l_fpn_ms-3x_16x2_coco-panoptic", "20211020_062341-62f3bbff"
    ),
    "knet-r50-coco-instance": _openmmlab(_KNET, "knet_s3_r50_fpn_1x_coco", "20211016_113017-8a8645d4"),
    "knet-r101-coco-instance": Released(_KNET_PAGE, _APACHE),  # its link leads to an empty folder
    "knet-r101dcn-coco-instance": _openmmlab(
        _KNET, "knet_s3_r101_dcn-c3-c5_fpn_ms-3x_coco", "20211017_054515-163a3126"
    ),
    "knet-fcn-r50-ade20k": _ade20k("fcn_r50-d8_8x2_512x512", "20220228_043751-abcab920"),
    "knet-pspnet-r50-ade20k": _ade20k("pspnet_r50-d8_8x2_512x512", "20220228_054634-d2c72240"),
    "knet-deeplabv3-r50-ade20k": _ade20k("deeplabv3_r50-d8_8x2_512x512", "20220228_041642-00c8fbeb"),
    "knet-upernet-r50-ade20k": _ade20k("upernet_r50-d8_8x2_512x512", "20220304_125657-215753b0"),
    "knet-upernet-swint-ade20k": _ade20k("upernet_swin-t_8x2_512x512", "20220303_133059-7545e1dc"),
    "knet-upernet-swinl-ade20k": _ade20k("upernet_swin-l_8x2_512x512", "20220303_154559-d8da9a90"),
    "knet-upernet-swinl640-ade20k": _ade20k("upernet_swin-l_8x2_640x640", "20220301_220747-8787fc71"),
    "knet-r50-cityscapes-step": _BAIDU,
    "knet-swinb-cityscapes-step": _BAIDU,
    "video-knet-r50-kitti-step": _BAIDU,
    "video-knet-swinb-kitti-step": _BAIDU,
    "video-knet-r50-vipseg": _BAIDU,
    "video-knet-swinb-vipseg": _BAIDU,
    "video-knet-r50-youtube-vis": _BAIDU,
    "video-knet-swinb-youtube-vis": _BAIDU,
}
