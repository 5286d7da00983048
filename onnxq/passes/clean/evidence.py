"""Writing the small graphs that prove a pass."""

from __future__ import annotations

from collections.abc import Iterable

from onnxq.contract import Example, Examples


def graph(
    body: str,
    inputs: str = "float[N,4] x",
    outputs: str = "float[N,4] y",
    *,
    opset: int = 17,
    constants: str = "",
    function: str = "",
) -> str:
    """A model in ONNX text form.

    Args:
        body: The nodes.
        inputs: Declarations of the graph's inputs.
        outputs: Declarations of the graph's outputs.
        opset: Version of the default operator set.
        constants: Declarations of the graph's initializers.
        function: A function `own.<name>(...) => (...) { ... }`, without its head.
    """
    domains = f'"" : {opset}' + (', "own" : 1' if function else "")
    text = f"<ir_version: 8, opset_import: [{domains}]> g ({inputs}) => ({outputs})"
    text += f" <{constants}> {{ {body} }}" if constants else f" {{ {body} }}"
    return text + (f' <domain: "own", opset_import: ["" : {opset}]> {function}' if function else "")


def evidence(fires: Iterable[str], holds: Iterable[tuple[str, str]]) -> Examples:
    """Examples from texts, and from texts with the reason a pass must give."""
    return Examples(
        fires=tuple(Example(text) for text in fires),
        holds=tuple(Example(text, reason) for text, reason in holds),
    )
