"""Models as files that run without torch: ONNX, OpenVINO, TensorRT."""
