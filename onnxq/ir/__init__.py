"""Recognition over onnx-ir: what a node *is*, in whatever spelling an exporter gave it.

Each module holds one kind of thing and one finder for it. A finder takes a node and returns what it found, a
`Reject` that says why a near match was left alone, or None. Finders only read; the few `rewrite_...`
functions change the graph through `Edit`. What was found describes the graph as it was: after a rewrite,
look again.

    walk         nodes of a model, constants behind cheap chains
    channels     how long the last axis is, without shapes
    flow         who reads a value, through operations that leave its channels alone
    precision    casts in and out of float64, overflow
    append       a new operation behind a value
    elementwise  what a few elementwise nodes compute
    linear       MatMul, Gemm
    convolution  Conv, ConvTranspose
    reduction    the core of a spelled-out norm
    norm         layer norm, RMS norm
    activation   Gelu, SiLU
    embedding    Gather of a table, tied weights
    residual     skip connections, streams, where a norm sits
    heads        from an attention product up to its linear layers
    attention    query, key, value, softmax, output
    feedforward  plain and gated
"""
