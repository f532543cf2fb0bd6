"""The label ids of Cityscapes: what its PNGs hold before the classes that are evaluated are picked out."""

# Cityscapes' raw label ids count through these names; ids that are not in CITYSCAPES_EVALUATED are void.
CITYSCAPES_LABELS = {
    "void": ("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground"),
    "flat": ("road", "sidewalk", "parking", "rail track"),
    "construction": ("building", "wall", "fence", "guard rail", "bridge", "tunnel"),
    "object": ("pole", "polegroup", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
}
CITYSCAPES_NAMES = tuple(name for names in CITYSCAPES_LABELS.values() for name in names)
CITYSCAPES_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
