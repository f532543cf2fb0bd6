"""Which metric judges which of the formats that `knet predict` writes, and which of them a folder holds."""

from pathlib import Path

from knet.errors import DataError

JUDGED: dict[str, tuple[str, tuple[str, ...]]] = {
    "panoptic": ("panoptic.json", ("pq", "ap")),
    "semantic": ("*_semantic.png", ("miou",)),
    "json": ("*_segments.json", ("ap",)),
    "step": ("panoptic/*/*.png", ("stq", "vpq")),
    "vipseg": ("vipseg/panomasks/*/*.png", ("stq", "vpq")),
    "vipseg-json": ("vipseg_json/pred.json", ("stq", "vpq")),
    "cityscapes-vps-json": ("cityscapes_vps_json/pred.json", ("stq", "vpq")),
    "youtube-vis": ("youtube-vis/results.json", ("ytvis",)),
    "overlay": ("*_overlay.jpg", ()),
    "video": ("*_overlay.mp4", ()),
    "instances": ("*_instances.png", ()),
    "polygons": ("*_polygons.json", ()),
    "cvat": ("cvat.json", ()),
    "labelstudio": ("labelstudio.json", ()),
    "cityscapes-vps": ("cityscapes_vps/*_final_mask.png", ()),
    "tracks": ("tracks.jsonl", ()),
    "mots": ("mots/*.txt", ()),
}
"""Format, or submission -> the files by which a folder is known to hold it, and the metrics that judge it."""


def refuse_others(folder: Path, metric: str) -> None:
    """Raises `DataError` for a folder that `knet predict` wrote without anything that the metric judges."""
    there = [name for name, (pattern, _) in JUDGED.items() if next(folder.glob(pattern), None)]
    if there and not any(metric in JUDGED[name][1] for name in there):
        wanted = [name for name, (_, metrics) in JUDGED.items() if metric in metrics]
        option = "--submission youtube-vis" if metric == "ytvis" else f"--formats {' or '.join(wanted)}"
        raise DataError(
            f"{folder} holds {', '.join(there)} of knet predict, but --metric {metric} judges what it writes with "
            f"{option}."
        )
