"""OpenVINO files, run on the CPU."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from knet.errors import ConfigError
from knet.files import is_file
from knet.inference.engines.exported import GraphEngine, Pool, existing, need, opening, own_precision, read_card
from knet.weights.card import METADATA_KEY


class OpenVinoEngine(GraphEngine):
    """An OpenVINO file (.xml, beside it .bin), run on the CPU.

    The precision "auto" is that of the file, with all floating point in float32; "bf16" lets OpenVINO compute in
    bfloat16 if the processor can.
    """

    name = "openvino"

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto"):
        need("openvino", what=f"'{path}'")
        import openvino

        if device not in ("auto", "cpu"):
            raise ConfigError(f"OpenVINO files run on the processor here, not on '{device}'; give --device cpu.")
        core = openvino.Core()
        with opening(path):
            weights = Path(existing(path)).with_suffix(".bin")
            if not is_file(weights):  # OpenVINO would wait for a pipe
                raise ValueError(f"there is no file {weights.name} beside it, which holds its weights")
            model = core.read_model(path)
            text = model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else None
        card, graph = read_card(path, text)
        own = graph.precision
        if precision in ("bf16", "fp16") and precision != own:
            able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if precision.upper() not in able:
                raise ConfigError(
                    f"OpenVINO cannot compute in {precision} on this processor, only in "
                    f"{', '.join(name.lower() for name in able if name in ('FP32', 'BF16', 'FP16', 'INT8'))}; "
                    "leave --precision out."
                )
        elif precision not in ("auto", own, "fp32") or (precision == "fp32" and own == "int8"):
            own_precision(path, graph, precision)  # raises
        hint = {"bf16": "bf16", "fp16": "f16" if precision != own else "f32"}.get(precision, "f32")
        config = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.asked = device, precision
        super().__init__(path, card, graph, own if precision == "auto" else precision)
        with opening(path):
            self._requests = Pool(core.compile_model(model, "CPU", config).create_infer_request)

    def run(self, inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """See `GraphEngine`."""
        values = {name: value.numpy() for name, value in inputs.items()}
        with self._requests.one() as request:
            results = request.infer(values, share_inputs=True)  # copies of its outputs
            return {output.get_any_name(): torch.from_numpy(value) for output, value in results.items()}
