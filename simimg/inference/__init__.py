"""Networks on pixels: LiteRT on processors, Keras on GPUs, OpenVINO for bfloat16, ONNX Runtime for ONNX files.

    a shipped model or a model folder -> `network_cache` -> a converted network, made once by `conversion`
    uint8 [n, size, size, 3]          -> a network       -> float32 [n, dim]

`inference_engine` says which arithmetic computed a result. An ONNX file is not converted (`onnx_network`). The modules
are imported one by one. Importing the package imports no TensorFlow.
"""
