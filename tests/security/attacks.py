"""Evil external data: what a hostile model could ask for, and every place of a model it could ask in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.files.models import OPSETS, branch, model_of, value

SECRET = bytes(range(16))


@dataclass(frozen=True)
class Attack:
    """External data entries, what lies on disk, and the slug of the refusal.

    Attributes:
        slug: Of the error that loading must raise.
        location: Entry of that name; ``{outside}`` is a folder beside the model's.
        prepare: Puts files where the attack needs them; gets the model's folder and the folder outside.
        entries: Further entries, in order; an entry named ``location`` comes after the first.
        dims: Dimensions of the float32 tensor.
    """

    slug: str
    location: str = "data"
    prepare: Callable[[Path, Path], object] = lambda inside, outside: None
    entries: tuple[tuple[str, str], ...] = ()
    dims: tuple[int, ...] = (4,)
    tensor: Mapping[str, int] = field(default_factory=dict)


def _data(content: bytes = SECRET) -> Callable[[Path, Path], object]:
    return lambda inside, outside: (inside / "data").write_bytes(content)


def _link_inside(inside: Path, outside: Path) -> None:
    (inside / "data").write_bytes(SECRET)
    (inside / "alias").symlink_to("data")


def _link_folder(inside: Path, outside: Path) -> None:
    (inside / "folder").symlink_to(outside)


ATTACKS = {
    "parent": Attack("escapes", "../outside/secret"),
    "nested parent": Attack("escapes", "a/../../outside/secret"),
    "parent and back": Attack("escapes", "../inside/data", _data()),
    "backslashes": Attack("escapes", "..\\outside\\secret"),
    "absolute": Attack("absolute-path", "{outside}/secret"),
    "drive": Attack("absolute-path", "C:\\secret"),
    "share": Attack("absolute-path", "\\\\host\\secret"),
    "proc": Attack("absolute-path", "/proc/self/environ"),
    "link": Attack(
        "symlink", prepare=lambda inside, outside: (inside / "data").symlink_to(outside / "secret")
    ),
    "link that stays": Attack(
        "symlink",
        prepare=_link_inside,
        location="alias",
    ),
    "linked folder": Attack("symlink", "folder/secret", _link_folder),
    "link to a device": Attack(
        "symlink", prepare=lambda inside, outside: (inside / "data").symlink_to("/dev/zero")
    ),
    "dangling link": Attack(
        "symlink", prepare=lambda inside, outside: (inside / "data").symlink_to("nothing")
    ),
    "hard link": Attack(
        "hardlink", prepare=lambda inside, outside: os.link(outside / "secret", inside / "data")
    ),
    "pipe": Attack("not-regular", prepare=lambda inside, outside: os.mkfifo(inside / "data")),
    "directory": Attack("not-regular", prepare=lambda inside, outside: (inside / "data").mkdir()),
    "file as folder": Attack("not-regular", "data/more", _data()),
    "no location": Attack("no-location", ""),
    "the folder itself": Attack("no-location", "./"),
    "missing": Attack("missing"),
    "missing folder": Attack("missing", "folder/data"),
    "nul": Attack("unreadable", "da\0ta"),
    "endless name": Attack("unreadable", "x" * 5000),
    "too short": Attack("out-of-bounds", prepare=_data(SECRET[:15])),
    "empty file": Attack("out-of-bounds", prepare=_data(b"")),
    "offset beyond": Attack("out-of-bounds", prepare=_data(), entries=(("offset", "1"),)),
    "huge offset": Attack("out-of-bounds", prepare=_data(), entries=(("offset", str(2**62)),)),
    "pointer": Attack("lfs-pointer", prepare=_data(b"version https://git-lfs"), dims=(100,)),
    "negative offset": Attack("bad-number", prepare=_data(), entries=(("offset", "-8"),)),
    "offset in words": Attack("bad-number", prepare=_data(), entries=(("offset", "1e3"),)),
    "endless number": Attack("bad-number", prepare=_data(), entries=(("length", "9" * 5000),)),
    "huge length": Attack("size-mismatch", prepare=_data(), entries=(("length", str(2**50)),)),
    "short length": Attack("size-mismatch", prepare=_data(), entries=(("length", "8"),)),
    "unknown key": Attack("unknown-key", prepare=_data(), entries=(("__class__", "x"),)),
    "base path": Attack("unknown-key", prepare=_data(), entries=(("basepath", "/etc"),)),
    "two locations": Attack("duplicate-key", prepare=_data(), entries=(("location", "../outside/secret"),)),
    "wrong checksum": Attack("checksum-mismatch", prepare=_data(), entries=(("checksum", "0" * 40),)),
    "negative dims": Attack("negative-dims", prepare=_data(), dims=(-2, -2)),
    "huge dims": Attack("max-tensor-bytes", prepare=_data(), dims=(2**40, 2**40)),
    "many dims": Attack("max-rank", prepare=_data(), dims=(1,) * 1000),
    "unknown type": Attack("unknown-dtype", prepare=_data(), tensor={"data_type": 99}),
    "strings": Attack("external-strings", prepare=_data(), tensor={"data_type": TensorProto.STRING}),
}


def evil_tensor(attack: Attack, outside: Path) -> onnx.TensorProto:
    """A tensor that points where `attack` wants it to."""
    location = attack.location.replace("{outside}", str(outside))
    tensor = TensorProto(name="evil", data_type=TensorProto.FLOAT, dims=attack.dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), *attack.entries):
        tensor.external_data.add(key=key, value=text)
    for name, number in attack.tensor.items():
        setattr(tensor, name, number)
    return tensor


def _whole(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    inputs = [value("x", 4), helper.make_tensor_value_info("condition", TensorProto.BOOL, [])]
    return model_of(helper.make_graph(list(nodes), "g", inputs, [value("y", 4)]), functions)


def in_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = _whole(helper.make_node("Add", ["x", "evil"], ["y"]))
    model.graph.initializer.append(tensor)
    return model


def in_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return _whole(
        helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("Add", ["x", "c"], ["y"])
    )


def in_list(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Any", ["x"], ["y"], domain="custom", tensors=[tensor])
    return _whole(node)


def in_subgraph(tensor: onnx.TensorProto) -> onnx.ModelProto:
    add = helper.make_node("Add", ["x", "evil"], ["inner"])
    then = branch(add, output="inner", initializers=(tensor,))
    other = branch(helper.make_node("Relu", ["x"], ["other"]), output="other")
    return _whole(helper.make_node("If", ["condition"], ["y"], then_branch=then, else_branch=other))


def in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor),
        helper.make_node("Add", ["a", "c"], ["b"]),
    ]
    function = helper.make_function("custom", "F", ["a"], ["b"], nodes, list(OPSETS))
    return _whole(helper.make_node("F", ["x"], ["y"], domain="custom"), functions=(function,))


def in_subgraph_of_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    inner = branch(helper.make_node("Add", ["a", "evil"], ["i"]), output="i", initializers=(tensor,))
    other = branch(helper.make_node("Relu", ["a"], ["o"]), output="o")
    node = helper.make_node("If", ["condition"], ["b"], then_branch=inner, else_branch=other)
    function = helper.make_function("custom", "F", ["a", "condition"], ["b"], [node], list(OPSETS))
    return _whole(helper.make_node("F", ["x", "condition"], ["y"], domain="custom"), functions=(function,))


def in_default_of_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], ["b"])]
    nodes[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR, ref_attr_name="default")
    default = helper.make_attribute("default", tensor)
    function = helper.make_function(
        "custom", "F", ["a"], ["b"], nodes, list(OPSETS), attribute_protos=[default]
    )
    return _whole(helper.make_node("F", ["x"], ["y"], domain="custom"), functions=(function,))


def _sparse(values: onnx.TensorProto, indices: onnx.TensorProto) -> onnx.SparseTensorProto:
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(values)
    sparse.indices.CopyFrom(indices)
    return sparse


_GOOD_VALUES = helper.make_tensor("evil", TensorProto.FLOAT, [1], [1.0])
_GOOD_INDICES = helper.make_tensor("indices", TensorProto.INT64, [1], [0])


def in_sparse_attribute(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    sparse = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor
    sparse.CopyFrom(_sparse(tensor, _GOOD_INDICES))
    return _whole(node)


def in_sparse_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = _whole(helper.make_node("Add", ["x", "evil"], ["y"]))
    model.graph.sparse_initializer.append(_sparse(_GOOD_VALUES, tensor))
    return model


PLACES = {
    "initializer": in_initializer,
    "constant": in_constant,
    "list": in_list,
    "subgraph": in_subgraph,
    "function": in_function,
    "subgraph of function": in_subgraph_of_function,
    "default of function": in_default_of_function,
    "sparse attribute": in_sparse_attribute,
    "sparse initializer": in_sparse_initializer,
}
SPARSE = {"sparse attribute", "sparse initializer"}
