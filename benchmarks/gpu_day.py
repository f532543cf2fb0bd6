"""All checks of a GPU in one report, run by `gpu_day.sh`; each part stands alone, and a failure ends its own only.

    merges      the merge in Triton against the plain one, odd sizes, and bits that are no numbers
    models      every model of the zoo against the CPU: plain, recorded, in bf16 and in fp16
    steps       two training steps of each family against the CPU
    speed       the table of benchmarks/README.md, "From an image to its map"
    training    seconds an iteration, and the share of waiting for data
    tests       pytest -m gpu
    compiled    every model compiled, as far as the time goes

The report is written after every part. A network of random weights is chaotic where masks have hard edges, so what is
compared with the CPU is what comes before the first hard edge, the initial masks; the last ones must be finite.
"""

import argparse
import copy
import csv
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
BUDGET = 440  # seconds of all parts; the rest of eight minutes is for starting
SIZE, TINY = (128, 192), (64, 96)
QUICK = ("rtknet-lite-street", "rt-video-knet-lite-kitti-step")  # what --quick looks at
LARGEST = {"fp32": 2e-3, "bf16": 0.6, "fp16": 0.15}  # differences; networks of random weights magnify rounding
Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Day:
    """What a part gets: the device, when it has to end, the models that are looked at, and whether sizes are tiny."""

    device: torch.device
    end: float
    names: tuple[str, ...]
    quick: bool

    def left(self) -> float:
        """The seconds that are left to the part."""
        return self.end - time.monotonic()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The size of the difference, as a share of the size of the numbers."""
    a, b = found.detach().float().cpu(), expected.detach().float().cpu()
    return float((a - b).norm() / b.norm().clamp(min=1e-6))


def merges(day: Day) -> Rows:
    """Owners, counts and masks, equal in every pixel."""
    from knet.merge.pixels import plain
    from knet.merge.pixels.backend import backend
    from knet.merge.pixels.stretch import stretch

    device, quick = day.device, day.quick
    fast, g = backend(device), torch.Generator().manual_seed(0)
    yield {"way": fast.__name__, "ok": device.type == "cpu" or fast.__name__.endswith("gpu")}
    cases = [
        (1, 3, 4, 20, 33),
        (7, 33, 57, 263, 451),
        (100, 25, 42, 199, 333),
        (60, 128, 256, 1021, 2047),
        (5, 9, 9, 5, 4),
    ]
    for masks, h, w, height, width in cases[:2] if quick else cases:
        to_pixels = stretch((h, w), (height + 3, width + 5), (height, width), crop=(height, width))
        for logits in (True, False):
            values, scores = torch.randn(masks, h, w, generator=g) * 9, torch.rand(masks, generator=g)
            expected = plain.share_pixels(values, scores, to_pixels, logits)
            found = fast.share_pixels(values.to(device), scores.to(device), to_pixels, logits)
            same = all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))
            yield {"masks": masks, "size": [height, width], "logits": logits, "ok": same}
            bits = (
                torch.randint(-(2**31), 2**31, (masks, h, w), generator=g, dtype=torch.int64).int().view(torch.float32)
            )
            owner = fast.share_pixels(bits.to(device), scores.to(device), to_pixels, logits)[0]
            yield {"bits": masks, "ok": int(owner.min()) >= 0 and int(owner.max()) < masks}
        above = zip(
            fast.masks_above_half(values.sigmoid().to(device), to_pixels),
            plain.masks_above_half(values.sigmoid(), to_pixels),
            strict=True,
        )
        yield {"above half": masks, "ok": all(torch.equal(a.cpu(), b) for a, b in above)}


def images_of(count: int = 1, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Soft blobs, normalised."""
    g = torch.Generator().manual_seed(1)
    return torch.nn.functional.interpolate(torch.randn(count, 3, 6, 9, generator=g), size, mode="bicubic")


def settled(name: str, day: Day) -> Any:
    """A model with random weights, whose batch norms have the statistics of activations, which so stay in range."""
    from knet.models.zoo import create

    torch.manual_seed(0)
    net = create(name).to(day.device)
    frozen = [module for module in net.modules() if getattr(module, "frozen", False)]
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    for module in frozen:
        module.frozen = False
    with torch.no_grad():
        net.train()(images_of(8, TINY if day.quick else SIZE).to(day.device))  # enough for norms of maps of one cell
    for module in frozen:
        module.frozen = True
    return net.cpu().eval()


def models(day: Day) -> Rows:
    """A row a model: differences from the CPU, the small ones first."""
    from knet.inference.engines.network import TorchEngine

    device = day.device
    for name in sorted(day.names, key=lambda name: any(word in name for word in ("swinl", "swinb", "r101"))):
        if day.left() < 0:
            yield {"model": name, "ok": None, "why": "no time left"}
            continue
        try:
            net = settled(name, day)
            images, row = images_of(1, TINY if day.quick else SIZE), dict[str, Any](model=name)
            expected, ok = TorchEngine(copy.deepcopy(net))(images), True
            for precision in LARGEST:
                engine = TorchEngine(copy.deepcopy(net), device, precision, frozen=True)
                plain, *_, recorded = [engine(images.to(device)) for _ in range(3)]  # the third one is replayed
                row[precision] = relative(plain[0].mask_logits, expected[0].mask_logits)
                row[f"{precision} recorded"] = relative(recorded[0].mask_logits, plain[0].mask_logits)
                finite = all(bool(output.mask_logits.isfinite().all()) for output in (plain[-1], recorded[-1]))
                graphs = engine._run._known.values() if device.type == "cuda" else []  # type: ignore[attr-defined]
                row[f"{precision} is recorded"] = any(ready not in (None, engine._forward) for ready in graphs)
                ok &= finite and max(row[precision], row[f"{precision} recorded"]) < LARGEST[precision]
                ok &= row[f"{precision} is recorded"] or device.type == "cpu"
            yield {**row, "ok": ok}
        except Exception as error:
            yield {"model": name, "ok": False, "why": f"{type(error).__name__}: {error}"[:300]}


def compiled(day: Day) -> Rows:
    """Every model compiled, the small ones first; those for which there is no time are told."""
    from knet.inference.engines.network import TorchEngine

    device = day.device
    for name in sorted(
        day.names, key=lambda name: ("lite" not in name, "slim" not in name, "swin" in name, "r101" in name)
    ):
        if day.left() < 25:
            yield {"model": name, "ok": None, "why": "no time left"}
            continue
        try:
            net, start = settled(name, day), time.perf_counter()
            images = images_of(1, TINY if day.quick else SIZE).to(device)
            expected = TorchEngine(copy.deepcopy(net), device)(images)
            found = TorchEngine(net, device, "fp32", frozen=True, compile=True)(images)
            difference = relative(found[0].mask_logits, expected[0].mask_logits)
            seconds = round(time.perf_counter() - start, 1)
            yield {"model": name, "fp32": difference, "seconds": seconds, "ok": difference < LARGEST["fp32"]}
        except Exception as error:
            yield {"model": name, "ok": False, "why": f"{type(error).__name__}: {error}"[:300]}


def steps(day: Day) -> Rows:
    """Losses and the size of the gradient of two steps, on the CPU and here, with the same weights and images."""
    from knet.config import config_names, load_config
    from knet.data.samples.batches import Batch
    from knet.data.samples.pairs import PairBatch
    from knet.inference.load import describe_official
    from knet.models.clip import ClipKNet
    from knet.models.zoo import ZOO, create
    from knet.runs.build import build_criterion, on_frames
    from knet.runs.optimizer import adamw
    from knet.runs.step import train_step
    from knet.structures import Target

    g = torch.Generator().manual_seed(2)
    ids = torch.ones(2, 64, 64, dtype=torch.int32)
    ids[:, 32:, :40] = 2
    images = list(torch.randint(0, 256, (2, 3, 64, 64), generator=g, dtype=torch.uint8))
    images_alone = ("rtknet-slim-camvid", "rtknet-lite-street", "knet-r50-coco-panoptic", "knet-r50-coco-instance")
    videos = ("rt-video-knet-slim-kitti-step", "video-knet-r50-kitti-step", "video-knet-r50-youtube-vis")
    known = {config.model: config for config in map(load_config, config_names())}
    families = (*images_alone, "knet-upernet-r50-ade20k", *videos)
    for name in [name for name in (day.names if day.quick else families) if name in known]:
        if day.left() < 0:
            yield {"model": name, "ok": None, "why": "no time left"}
            continue
        config = known[name]
        last, seen = ZOO[name].arguments["classes"] - 1, list[Any]()
        targets = [Target(ids[0], torch.tensor([0, last])), Target(ids[1], torch.tensor([last, 1]))]
        for place in (torch.device("cpu"), day.device):
            torch.manual_seed(0)
            net = create(name)
            for module in net.modules():  # each device draws other random numbers
                for chance in {"p", "drop_prob"} & vars(module).keys():
                    setattr(module, chance, 0.0)
            net.to(place)
            criterion, optimizer = build_criterion(config, net, describe_official(name)), adamw(net, 1e-6)
            scaler = torch.amp.GradScaler(place.type, enabled=False)
            for iteration in range(2):
                batch: Any = Batch(images, targets, [0, 1], {})
                if net.embeds:
                    batch = PairBatch(batch, batch, [torch.arange(2)] * 2, [0, 1])
                elif isinstance(net, ClipKNet):
                    batch = Batch(images[:1] * 5, targets[:1] * 5, list(range(5)), {})
                seen.append(train_step(on_frames(net), criterion, optimizer, scaler, batch, seed=(0, iteration)))
        first, here = seen[0], seen[2]
        worst = max(abs(here.losses[key] - loss) / max(abs(loss), 1e-3) for key, loss in first.losses.items())
        ok = all(step.taken for step in seen) and worst < 0.05
        yield {"model": name, "loss": worst, "gradient": [step.gradient_norm for step in seen], "ok": ok}


def speed(day: Day) -> Rows:
    """What `image_to_id_map_gpu.py` prints."""
    quick = ["--quick"] if day.quick or day.device.type == "cpu" else ["--rounds", "20"]
    yield ran([HERE / "image_to_id_map_gpu.py", "--device", day.device.type, *quick], day.left())


def training(day: Day) -> Rows:
    """Seconds an iteration and the share of waiting, on drawn streets."""
    from knet import train
    from knet.data.make.prepare import prepare_cityscapes
    from knet.data.synthetic.layouts import synthesize

    small = day.quick or day.device.type == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cityscapes"
        synthesize("cityscapes", root, 2 if small else 16, (64, 128) if small else (1024, 2048))
        prepare_cityscapes(root, ["train", "val"])
        count, batch, crop = (2, 2, [64, 64]) if small else (40, 16, [512, 1024])
        options: dict[str, Any] = {
            "iterations": count,
            "log_every": count // 2,
            "validate_every": count,
            "batch": batch,
        }
        options |= {"precision": "fp32" if small else "bf16", "workers": 0 if small else 14, "device": day.device.type}
        options |= {"augment__crop": crop, "save_every": count, "output": str(Path(folder) / "run")}
        if small:
            options |= {"augment__short_edges": [64], "augment__max_edge": 128, "short_edge": 64, "max_edge": 128}
        run = train("rtknet-slim-cityscapes", data__root=str(root), **options)
        with (run / "train.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    for row in rows:
        seconds = float(row["seconds"])
        figures = {"iteration": row["iteration"], "seconds": seconds, "waiting": float(row["waiting"])}
        yield {**figures, "images a second": batch / seconds, "ok": True}


def tests(day: Day) -> Rows:
    """The tests that are marked for a GPU."""
    yield ran(["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", HERE.parent / "tests"], day.left())


def ran(command: list[Any], seconds: float) -> dict[str, Any]:
    """The end of what a command of this Python printed, and whether it went well."""
    words = [sys.executable, *map(str, command)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=max(seconds, 10))
    except subprocess.TimeoutExpired:
        return {"command": words[1:], "ok": False, "why": "it took too long"}
    return {"ok": done.returncode == 0, "lines": (done.stdout + done.stderr).splitlines()[-60:]}


PARTS: dict[str, tuple[Callable[[Day], Rows], float]] = {  # share of the time
    "merges": (merges, 0.05),
    "models": (models, 0.35),
    "steps": (steps, 0.1),
    "speed": (speed, 0.15),
    "training": (training, 0.15),
    "tests": (tests, 0.1),
    "compiled": (compiled, 1.0),  # what is left
}


def main() -> int:
    """Runs the parts. The exit status is 1 if something was not as on the CPU."""
    from knet.models.zoo import ZOO

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", type=Path, default=Path("gpu_day.json"))
    parser.add_argument("--cpu", action="store_true", help="leave out what only a GPU can do")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--models", metavar="LIST", help="with --quick: names of the models that are looked at")
    parser.add_argument("--only", metavar="LIST", help="parts, separated by commas")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds")
    args = parser.parse_args()
    device = torch.device("cpu" if args.cpu else "cuda")
    chosen = args.only.split(",") if args.only else [n for n in PARTS if not args.cpu or n not in ("tests", "compiled")]
    if args.models and not args.quick:
        parser.error("--models is for --quick; without it all are looked at")
    names = tuple(args.models.split(",")) if args.models else QUICK if args.quick else tuple(ZOO)
    start = time.monotonic()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "parts": {}}
    for part in chosen:
        run, share = PARTS[part]
        began, rows = time.monotonic(), list[dict[str, Any]]()
        end = min(began + share * args.budget, start + args.budget)
        report["parts"][part] = rows
        try:
            for row in run(Day(device, end, names, args.quick)):
                rows.append(row)
        except Exception as error:  # one part never costs the others
            rows.append(
                {"ok": False, "why": f"{type(error).__name__}: {error}", "where": traceback.format_exc()[-1500:]}
            )
        args.report.write_text(json.dumps(report, indent=1) + "\n")
        bad = [row for row in rows if row["ok"] is False]
        left_out = sum(row["ok"] is None for row in rows)
        print(f"{part:<10} {len(rows) - len(bad) - left_out} good, {len(bad)} bad, {left_out} left out, ", end="")
        print(f"{time.monotonic() - began:.0f} s")
        for row in bad:
            print("  ", json.dumps(row)[:400])
    return int(any(row["ok"] is False for rows in report["parts"].values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
