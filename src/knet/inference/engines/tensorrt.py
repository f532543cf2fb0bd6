"""TensorRT engines (.engine), built by `knet export --format tensorrt` or trtexec on the machine that runs them.

This follows NVIDIA's documentation of TensorRT 10. It was never run, as the library was not at hand.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from knet.errors import CheckpointError, ConfigError
from knet.inference.engines.exported import (
    GraphEngine,
    Pool,
    damaged,
    existing,
    need,
    opening,
    own_precision,
    read_card,
)
from knet.weights.card import METADATA_KEY


class TensorRtEngine(GraphEngine):
    """An .engine file on an NVIDIA GPU. Its card is in the ONNX file of the same name beside it, its source."""

    name = "tensorrt"

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto"):
        existing(path)
        need("tensorrt", "onnx", what=f"'{path}'")
        import onnx
        import tensorrt as trt

        if not torch.cuda.is_available() or not device.startswith(("auto", "cuda")):
            raise ConfigError(
                f"TensorRT runs on NVIDIA GPUs alone, not on '{device}' here; take the ONNX file instead."
            )
        source = path.with_suffix(".onnx")
        if not source.is_file():
            raise CheckpointError(
                f"The file '{source}' is missing, from which '{path.name}' was built and which knows its classes; put "
                "it beside the engine."
            )
        with opening(source):
            rows = onnx.load(str(source), load_external_data=False).metadata_props
        card, graph = read_card(source, next((row.value for row in rows if row.key == METADATA_KEY), None))
        place = "cuda" if device == "auto" else device
        self.asked = device, precision
        super().__init__(path, card, graph, own_precision(path, graph, precision), place)
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # must live as long as the engine
        engine = self._runtime.deserialize_cuda_engine(Path(existing(path)).read_bytes())
        if engine is None:
            raise damaged(path, RuntimeError("another version of TensorRT, another GPU, or a damaged file"))
        self._engine, self._contexts = engine, Pool(engine.create_execution_context)
        types = {trt.float32: torch.float32, trt.float16: torch.float16, trt.int32: torch.int32}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        with opening(path):  # a type that `knet export` does not write
            self._outputs = {name: types[engine.get_tensor_dtype(name)] for name in outputs}

    def run(self, inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """See `GraphEngine`."""
        with self._contexts.one() as context:
            return self._run_in(context, inputs)

    def _run_in(self, context: Any, inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        for name, value in inputs.items():
            if not context.set_input_shape(name, tuple(value.shape)):
                height, width = inputs["images"].shape[2:]
                raise ConfigError(
                    f"'{self.path}' was not built for images of {height}x{width} pixels; give another --size, or build "
                    "it for larger ones (trtexec --maxShapes)."
                )
            context.set_tensor_address(name, value.data_ptr())
        found = {}
        for name, dtype in self._outputs.items():
            found[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device=self.device)
            context.set_tensor_address(name, found[name].data_ptr())
        stream = torch.cuda.current_stream(self.device)
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()  # inputs must not be freed before
        return found
