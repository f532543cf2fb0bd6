"""A network for your own classes, one training step, and a file that `knet predict` understands.

For real training use `knet train`; this shows the parts: network, targets, criterion, weights with their class table.

    python examples/own_classes.py
"""

import numpy as np
import torch

import knet
from knet.inference.load import describe
from knet.preprocess import normalize_and_pad
from knet.structures import Category, Preprocessing, Target
from knet.training.criterion_rtknet import Criterion
from knet.weights.load import save_weights

# Stuff first, then things; the position in the table is the label that the network learns.
categories = [Category(1, "floor", False, (120, 120, 120)), Category(2, "box", True, (220, 120, 20))]
preprocessing = Preprocessing(short_edge=128, max_edge=256)
arguments = {"classes": len(categories), "kernels": 20}
net = knet.create("rtknet-slim-cityscapes", **arguments)

image = torch.zeros(3, 128, 192, dtype=torch.uint8)
id_map = torch.ones(128, 192, dtype=torch.int64)  # segment 1: the floor
image[:, 40:80, 60:120], id_map[40:80, 60:120] = 200, 2  # segment 2: a box
target = Target(id_map, labels=torch.tensor([0, 1]))

outputs = net(normalize_and_pad([image, image], preprocessing))
losses = Criterion(pixels=256)(outputs, [target, target])
torch.stack(list(losses.values())).sum().backward()
print({name: round(loss.item(), 3) for name, loss in losses.items() if name.startswith("s5")})

card = describe("rtknet-slim-cityscapes", arguments, categories, preprocessing, score=0.3, overlap=0.6)
save_weights("boxes.safetensors", net.state_dict(), card)
segmenter = knet.load("boxes.safetensors", device="cpu")
print([category.name for category in segmenter.categories], segmenter(np.zeros((100, 100, 3), np.uint8)).id_map.shape)
