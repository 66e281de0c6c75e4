"""Networks on pixels: LiteRT on processors, Keras on GPUs, OpenVINO for bfloat16. Importing it imports no TensorFlow.

    a shipped model or a model folder -> `network_cache` -> a converted network, made once by `conversion`
    uint8 [n, size, size, 3]          -> a network       -> float32 [n, dim]

`inference_engine` says which arithmetic computed a result. The modules are imported one by one.
"""
