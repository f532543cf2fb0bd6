"""A network for your own classes: draws a small data set, trains on it for a moment, evaluates and uses the result.

Three iterations teach it nothing; docs/custom-data.md goes through the same steps and a whole run.

    python examples/own_classes.py
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import knet

# The position in the table is the label that the network learns; the number is the class's value in the label PNGs.
categories = [knet.Category(1, "floor", False, (120, 120, 120)), knet.Category(2, "box", True, (220, 120, 20))]
root = Path(tempfile.mkdtemp(prefix="own-classes-", dir="."))
for part, count in (("train", 4), ("val", 2)):
    for kind in ("images", "labels"):
        (root / kind / part).mkdir(parents=True)
    for number in range(count):
        image, labels = np.full((96, 128, 3), 80, np.uint8), np.ones((96, 128), np.uint8)
        top, left = 10 * number, 15 * number
        image[top : top + 40, left : left + 50], labels[top : top + 40, left : left + 50] = 200, 2
        Image.fromarray(image).save(root / "images" / part / f"{number}.png")
        Image.fromarray(labels).save(root / "labels" / part / f"{number}.png")
    knet.data.make.from_labels.labels_to_panoptic(
        root / "images" / part, root / "labels" / part, root / part, categories
    )

config = knet.read_config(
    "custom",
    data__root=root,
    augment__short_edges=[96],
    augment__crop=[96, 128],
    short_edge=96,
    losses__pixels=256,
    iterations=3,
    batch=2,
    workers=0,
    precision="fp32",
    output=root / "run",
)
folder = knet.train(config)
figures = knet.evaluate(folder / "best.safetensors", config)
print(f"PQ {figures['panoptic']['all']['pq']:.3f}, mean IoU {figures['semantic']['miou']:.3f}")

segmenter = knet.load(folder / "best.safetensors")
print(f"weights: {folder / 'best.safetensors'}")
print([category.name for category in segmenter.categories], segmenter(root / "images" / "val" / "1.png").id_map.shape)
