"""Writing a model: whole or not at all, same bytes for the same model, never a protobuf over 2 GiB."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import EncodeError

from onnxq.errors import OutputError
from onnxq.files.commit import Commit, Draft
from onnxq.files.tensors import Site, bytes_of, sites, stand_ins, with_labels_of

_PROTOBUF_LIMIT = (2 << 30) - 1
_INLINE_LIMIT = 3 << 29
"""Models with more bytes of weights get external data: 1.5 GiB leaves room for the graph below 2 GiB."""
_SMALLEST_MOVED = 1024
"""Smaller tensors stay in the model, where shape inference can read them."""
_PAGE = 4096


def save(model: ir.Model, path: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Write `model` to `path`, replacing what is there in one step.

    A kill at any moment leaves the old model or the new one, each with its own data. It is safe to save
    over the file that `model` was loaded from. A symbolic link at `path` is replaced, not followed.

    Args:
        model: The model; unchanged afterwards.
        path: The file to write, in an existing folder.
        external: Whether weights go to a data file beside it, ``<name>.<hash of its content>.data``.
            None: where they have more than 1.5 GiB.

    Raises:
        OutputError: No space, no permission, a directory in the way, or too large for one file; whatever
            was at `path` is untouched.
    """
    path = Path(path)
    if external is None:
        external = sum(site.tensor.nbytes for site in sites(model)) > _INLINE_LIMIT
    with _output_errors(path):
        _check_target(path)
        with Commit(path) as commit:
            data, offsets = _write_data(model, commit) if external else (None, {})
            location = commit.data_name(data) if data is not None else ""
            draft = commit.draft()
            draft.write(_serialize(model, location, offsets))
            draft.finish()
            commit.publish(draft, data)


def to_bytes(model: ir.Model) -> bytes:
    """The bytes of an ``.onnx`` file with all weights inside; the same for the same model.

    Raises:
        OutputError: The model does not fit into 2 GiB.
    """
    return _serialize(model, "", {})


def _write_data(model: ir.Model, commit: Commit) -> tuple[Draft | None, dict[int, int]]:
    """Write the tensors that are worth moving; gives the file and the offset of each by its `id`.

    Page-aligned offsets let a runtime map the weights. A tensor kept in several places is written once.
    """
    moved = {id(site.tensor): site.tensor for site in sites(model) if _is_moved(site)}
    if not moved:
        return None, {}
    draft = commit.draft()
    offsets: dict[int, int] = {}
    for key, tensor in moved.items():
        draft.align(_PAGE)
        offsets[key] = draft.size
        draft.write(bytes_of(tensor))
    draft.finish()
    return draft, offsets


def _is_moved(site: Site) -> bool:
    return site.movable and site.tensor.dtype != ir.DataType.STRING and site.tensor.nbytes >= _SMALLEST_MOVED


def _serialize(model: ir.Model, location: str, offsets: dict[int, int]) -> bytes:
    """The protobuf of `model`, with the tensors in `offsets` (by `id`) left in the file `location`."""

    def replace(site: Site) -> ir.TensorProtocol | None:
        tensor = site.tensor
        if _is_moved(site) and id(tensor) in offsets:
            return _external(tensor, location, offsets[id(tensor)])
        if isinstance(tensor, ir.ExternalTensor):
            # Of someone else's making, as `load` leaves none; where it points to would not hold here.
            return with_labels_of(tensor, ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name))
        return None

    if sum(site.tensor.nbytes for site in sites(model) if id(site.tensor) not in offsets) > _PROTOBUF_LIMIT:
        raise _too_large()
    with stand_ins(model, replace):
        try:
            return bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
        except EncodeError as error:
            raise _too_large() from error
        except ir.serde.SerdeError as error:
            cause = error.__cause__ or error
            raise OutputError(f"the model cannot be written: {cause}", slug="not-serializable") from error


def _too_large() -> OutputError:
    return OutputError(
        "the model does not fit into the 2 GiB of one protobuf",
        hint="Save it with external data.",
        slug="over-2-gib",
    )


def _external(tensor: ir.TensorProtocol, location: str, offset: int) -> ir.ExternalTensor:
    shape, name = ir.Shape(tensor.shape.numpy()), tensor.name or ""
    external = ir.ExternalTensor(location, offset, tensor.nbytes, tensor.dtype, shape=shape, name=name)
    return with_labels_of(tensor, external)


def _check_target(path: Path) -> None:
    """Refuse a target that is no place for a file, before anything is written."""
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", hint="Create it first.", slug="no-folder")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path} is a directory", hint="Name a file inside it.", slug="is-directory")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OutputError(f"{path} is a device, a pipe or a socket", hint="Name a file.", slug="not-regular")


_REASONS = {
    errno.ENOSPC: ("no-space", "Free some space, or write to another disk."),
    errno.EDQUOT: ("no-space", "Your disk quota is used up."),
    errno.EACCES: ("not-writable", "Choose a folder that you may write to."),
    errno.EPERM: ("not-writable", "Choose a folder that you may write to."),
    errno.EROFS: ("not-writable", "The disk is read-only. Choose another."),
}


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        slug, hint = _REASONS.get(error.errno or 0, ("io-error", ""))
        reason = error.strerror or str(error)
        raise OutputError(f"{path} could not be written: {reason}", hint=hint, slug=slug) from error
