"""Settings as types, as TOML, and passes as words: `fold-gamma{guard=1.0}`."""

from onnxq.recipe.document import format_recipe, parse_recipe, read_recipe
from onnxq.recipe.settings import BenchSettings, DataSettings, OptimizeSettings
from onnxq.recipe.spec import GRAPHSURGEON, format_pass, parse_pass

__all__ = [
    "GRAPHSURGEON",
    "BenchSettings",
    "DataSettings",
    "OptimizeSettings",
    "format_pass",
    "format_recipe",
    "parse_pass",
    "parse_recipe",
    "read_recipe",
]
