"""Files of a fixed size give for images of another shape what the network gives: it does not see the padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made import card
from test_export import OTHERS, photo
from torch.nn import functional as F

import knet
from knet.errors import ConfigError
from knet.export.graph import Graph
from knet.export.hides import hides_padding
from knet.export.report import Parity, compare, same_segments, table
from knet.export.write import export
from knet.inference.load import segmenter_for
from knet.inference.sources.videos import Item
from knet.models.network import Network
from knet.models.zoo import create
from knet.structures import Output
from tiny_models import ARGUMENTS, tiny_file

LIGHT = {"channels": 32, "kernels": 6, "stages": 2, "hidden": 32}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "light": ("rtknet-lite-street", {**LIGHT, "backbone": "timm/tf_efficientnet_lite0", "stride": 4}),
    "squeezed": ("rtknet-lite-street", {**LIGHT, "backbone": "timm/efficientnet_b0"}),
    **{name: OTHERS[name] for name in ("real-time", "pspnet", "deeplabv3", "swin", "swin-panoptic")},
    **{name: (model, arguments) for name, (model, _, arguments) in ARGUMENTS.items()},
}


QUICK = ("light", "panoptic")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.heavy) for name in NETWORKS]
)
def test_a_smaller_image_in_a_fixed_size_is_what_it_is_alone(name: str) -> None:
    torch.manual_seed(0)
    model, arguments = NETWORKS[name]
    net: Network = create(model, **arguments).eval()
    height, width, size = (64, 96, (128, 160)) if net.size_divisor == 32 else (67, 83, (101, 120))
    assert hides_padding(net, size)
    graph, alone = Graph(net, seen=True), Graph(net)
    frames = 2 if name == "clip" else 1
    for _ in range(3):  # on one of three images no rounding moves a pixel over the edge of a hard mask
        image = torch.randn(frames, 3, height, width)
        padded = F.pad(image, (0, size[1] - width, 0, size[0] - height))
        previous = graph.inputs(size)["previous"] if net.embeds else None
        with torch.no_grad():
            expected, plain = (alone(x, previous) for x in (image, padded))
            found = graph(padded, previous, seen=torch.tensor([height, width]))
        differences = [cut_difference(found, expected, key) for key in expected]
        assert cut_difference(plain, expected, "mask_logits") > 1e-2  # which the padding would change
        if max(differences) <= 1e-3:
            return
    pytest.fail(f"differs by {max(differences)}")


def cut_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], key: str) -> float:
    """The largest difference where the image is, relative to the largest value."""
    a, b = expected[key], found[key]
    b = b[..., : a.shape[-2], : a.shape[-1]] if a.ndim > 3 else b
    return float((a - b).abs().max() / a.abs().max().clamp(min=1))


class Whole(Network):
    """A network that looks at its map in a way that nobody follows."""

    size_divisor = stride = 32

    def forward(self, images: torch.Tensor) -> list[Output]:
        x = F.avg_pool2d(images, 32) / images.std()
        return [Output(torch.ones(1, 1, 1), x, None, x)]


def test_a_network_that_cannot_be_followed_is_found() -> None:
    assert not hides_padding(Whole(), (128, 160))


@pytest.mark.heavy
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_the_bundled_model_in_a_file_of_another_shape(form: Any, tmp_path: Path) -> None:
    target = tmp_path / ("model.onnx" if form == "onnx" else "model.xml")
    _, parity = export("rtknet-lite-street", form, output=target, size=(512, 512))
    assert parity.equal_pixels is not None and parity.equal_pixels > 0.9999
    assert parity.own_size is not None and parity.own_size < 0.99 and parity.fitting == (416, 768)
    original, exported = knet.load("rtknet-lite-street", device="cpu", precision="fp32"), knet.load(target)
    for image in (photo((300, 150)), photo((150, 300)), photo((200, 200))):
        assert same_segments(original(image, size=(512, 512)), exported(image)).mean() > 0.999


def fixed(model: knet.Segmenter, size: tuple[int, int], **more: Any) -> knet.Segmenter:
    """The model as if it were a file of a fixed size: the network of torch behind its card."""
    graph = card(size=size).graph
    assert graph is not None
    graph = graph.model_copy(update=more)
    return segmenter_for(model.engine, model.card.model_copy(update={"graph": graph}))


def test_the_report_tells_of_torch_at_the_size_of_its_own(tmp_path: Path) -> None:
    own = knet.load(tiny_file("panoptic", tmp_path), device="cpu", precision="fp32")
    small, fits = fixed(own, (64, 64)), fixed(own, (64, 128))
    items = [Item(photo((60, 100)), "street")]
    parity = compare(small, small, items, own)
    assert parity.equal_pixels == 1
    assert parity.own_size is not None and parity.own_size < 1 and parity.fitting == (64, 128)
    assert all(row["own_size"] < 1 for row in parity.images)
    told = table(parity)
    assert "note: by itself torch sees these images at another size" in told
    assert told.endswith("a file of --size 64x128 sees them as torch does")
    other = compare(small, small, [*items, Item(photo((100, 60)), "lane")], own)
    assert table(other).endswith("a file of any size (--dynamic) sees them as torch does")
    assert compare(fits, fits, items, own).own_size is None
    assert "note" not in table(Parity())


def test_an_upright_image_fits_into_a_file_of_landscapes(tmp_path: Path) -> None:
    own = knet.load(tiny_file("panoptic", tmp_path), device="cpu", precision="fp32")
    inputs, sizes = fixed(own, (64, 128)).prepare(np.zeros((200, 100, 3), np.uint8), "model")
    assert (sizes.resized, tuple(inputs.shape[2:])) == ((64, 32), (64, 32))


@pytest.mark.heavy
def test_a_filled_file_refuses_what_does_not_fill_it(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    picture = tmp_path / "wide.png"
    photo((64, 96), picture)
    export(tiny_file("panoptic", tmp_path), output=target, size=(64, 96), images=[picture], filled=True)
    model = knet.load(target)
    assert model(photo((128, 192))).id_map.shape == (128, 192)
    with pytest.raises(ConfigError, match=r"images that fill 64x96 pixels .* is 64x64 .*without --filled"):
        model(photo((64, 64)))


def test_filled_is_for_files_of_a_fixed_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--filled is for files of a fixed size; give --size HxW, too"):
        export(tiny_file("panoptic", tmp_path), filled=True)
