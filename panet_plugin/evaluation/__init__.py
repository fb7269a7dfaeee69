"""Scoring methods on benchmark sets with the published protocols."""

from panet_plugin.errors import EvaluationError
from panet_plugin.evaluation.compare import Score, compare
from panet_plugin.evaluation.figures import FigureChoice, choose_figures, write_figures
from panet_plugin.evaluation.image_sets import ImageSet, Sample
from panet_plugin.evaluation.methods import (
    BASELINES,
    FolderMethod,
    FunctionMethod,
    Method,
    NetworkMethod,
    bicubic,
    degraded,
)
from panet_plugin.evaluation.perceptual import load_lpips
from panet_plugin.evaluation.published import PublishedScore, published_scores
from panet_plugin.evaluation.report import Mean, markdown, means, write_reports

__all__ = [
    "BASELINES",
    "EvaluationError",
    "FigureChoice",
    "FolderMethod",
    "FunctionMethod",
    "ImageSet",
    "Mean",
    "Method",
    "NetworkMethod",
    "PublishedScore",
    "Sample",
    "Score",
    "bicubic",
    "choose_figures",
    "compare",
    "degraded",
    "load_lpips",
    "markdown",
    "means",
    "published_scores",
    "write_figures",
    "write_reports",
]
