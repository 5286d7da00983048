"""Whether two models compute the same: comparison of outputs, feeds, the oracle, and who is to blame."""

from onnxq.verify.bisect import Divergence, State, divergences, first_different
from onnxq.verify.compare import Comparison, OutputComparison, compare
from onnxq.verify.feeds import Feed, FeedSettings, make_feeds
from onnxq.verify.judgement import Budget, Judgement, OracleSettings, Verdict
from onnxq.verify.oracle import judge

__all__ = [
    "Budget",
    "Comparison",
    "Divergence",
    "Feed",
    "FeedSettings",
    "Judgement",
    "OracleSettings",
    "OutputComparison",
    "State",
    "Verdict",
    "compare",
    "divergences",
    "first_different",
    "judge",
    "make_feeds",
]
