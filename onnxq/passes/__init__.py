"""The registry of passes: their names in the order a pipeline runs them, loaded only when asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping

from onnxq.contract import AnyPass
from onnxq.errors import UsageProblem

_MODULES = {
    "inline-functions": "onnxq.passes.clean.inline_functions:InlineFunctions",
    "infer-shapes": "onnxq.passes.clean.infer_shapes:InferShapes",
    "raise-opset": "onnxq.passes.clean.raise_opset:RaiseOpset",
    "drop-identity": "onnxq.passes.clean.drop_identity:DropIdentity",
    "drop-dropout": "onnxq.passes.clean.drop_dropout:DropDropout",
    "drop-casts": "onnxq.passes.clean.drop_casts:DropCasts",
    "fold-constants": "onnxq.passes.clean.fold_constants:FoldConstants",
    "cancel-transposes": "onnxq.passes.clean.cancel_transposes:CancelTransposes",
    "merge-reshapes": "onnxq.passes.clean.merge_reshapes:MergeReshapes",
    "recompose-layer-norm": "onnxq.passes.clean.recompose_layer_norm:RecomposeLayerNorm",
    "recompose-rms-norm": "onnxq.passes.clean.recompose_rms_norm:RecomposeRMSNorm",
    "recompose-gelu": "onnxq.passes.clean.recompose_gelu:RecomposeGelu",
    "share-constants": "onnxq.passes.clean.share_constants:ShareConstants",
    "drop-unused": "onnxq.passes.clean.drop_unused:DropUnused",
    "fold-layer-scale": "onnxq.passes.layout.fold_layer_scale:FoldLayerScale",
    "fold-batch-norm": "onnxq.passes.layout.fold_batch_norm:FoldBatchNorm",
    "fold-gamma": "onnxq.passes.migrate.fold_gamma:FoldGamma",
    "shift-scale": "onnxq.passes.migrate.shift_scale:ShiftScale",
    "insert-scale": "onnxq.passes.migrate.insert_scale:InsertScale",
    "permute-residual": "onnxq.passes.migrate.permute_residual:PermuteResidual",
    "disassemble-channels": "onnxq.passes.migrate.disassemble_channels:DisassembleChannels",
    "assemble-channels": "onnxq.passes.compress.assemble_channels:AssembleChannels",
    "split-channels": "onnxq.passes.migrate.split_channels:SplitChannels",
    "split-groups": "onnxq.passes.migrate.split_groups:SplitGroups",
    "rotate-channels": "onnxq.passes.migrate.rotate_channels:RotateChannels",
    "quantize-embeddings": "onnxq.passes.quantize.embeddings:QuantizeEmbeddings",
    "quantize-blocks": "onnxq.passes.quantize.blocks:QuantizeBlocks",
    "quantize-linears": "onnxq.passes.quantize.linears:QuantizeLinears",
    "quantize-products": "onnxq.passes.quantize.products:QuantizeProducts",
    "hoist-rounding": "onnxq.passes.layout.hoist_rounding:HoistRounding",
    "fold-factor": "onnxq.passes.layout.fold_factor:FoldFactor",
    "compute-picked": "onnxq.passes.layout.compute_picked:ComputePicked",
    "convert-half": "onnxq.passes.compress.convert_half:ConvertHalf",
    "quantize-convs": "onnxq.passes.quantize.convolutions:QuantizeConvs",
    "raise-for-attention": "onnxq.passes.layout.raise_for_attention:RaiseForAttention",
    "fuse-attention": "onnxq.passes.layout.fuse_attention:FuseAttention",
    "bound-mask": "onnxq.passes.quantize.bound_mask:BoundMask",
    "fuse-gelu": "onnxq.passes.layout.fuse_gelu:FuseGelu",
    "stack-heads": "onnxq.passes.layout.stack_heads:StackHeads",
    "fuse-rotary": "onnxq.passes.layout.fuse_rotary:FuseRotary",
    "respell-rms-norm": "onnxq.passes.layout.respell_rms_norm:RespellRMSNorm",
    "move-nan-guard": "onnxq.passes.layout.move_nan_guard:MoveNanGuard",
    "pick-by-slice": "onnxq.passes.layout.pick_by_slice:PickBySlice",
    "sum-before-norm": "onnxq.passes.layout.sum_before_norm:SumBeforeNorm",
    "gather-dequantized": "onnxq.passes.layout.gather_dequantized:GatherDequantized",
    "sub-before-norm": "onnxq.passes.layout.sub_before_norm:SubBeforeNorm",
    "phase-transposed-convs": "onnxq.passes.layout.phase_transposed_convs:PhaseTransposedConvs",
    "narrow-before-upsampling": "onnxq.passes.layout.narrow_before_upsampling:NarrowBeforeUpsampling",
    "move-codes": "onnxq.passes.layout.move_codes:MoveCodes",
    "fold-row-factor": "onnxq.passes.layout.fold_row_factor:FoldRowFactor",
    "cancel-across": "onnxq.passes.layout.cancel_across:CancelAcross",
}


class Registry(Mapping[str, type[AnyPass]]):
    """Pass classes by name; a class is imported when it is looked up."""

    def __getitem__(self, name: str) -> type[AnyPass]:
        if name not in _MODULES:
            close = difflib.get_close_matches(name, _MODULES, 1)
            hint = f"Did you mean {close[0]!r}?" if close else "`onnxq passes` lists them."
            raise UsageProblem(f"there is no pass {name!r}", hint=hint, slug="unknown-pass")
        module, _, attribute = _MODULES[name].partition(":")
        found: type[AnyPass] = getattr(importlib.import_module(module), attribute)
        return found

    def __contains__(self, name: object) -> bool:
        return name in _MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


def registry() -> Registry:
    """All passes that come with onnxq."""
    return Registry()
