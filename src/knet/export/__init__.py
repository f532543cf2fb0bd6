"""Turns models into files that run without torch's network: ONNX, OpenVINO and TensorRT. See `write.export`."""
