"""Data as NumPy arrays: bundled, downloaded and generated data, and their preparation.

The modules of this package do not import JAX.
"""

from research.datasets._benchmark_logs import benchmark_logs as benchmark_logs
from research.datasets._documents import DocumentSplit as DocumentSplit
from research.datasets._documents import documents as documents
from research.datasets._image_file import check_images as check_images
from research.datasets._image_file import read_image as read_image
from research.datasets._images import ImageSplit as ImageSplit
from research.datasets._images import images as images
from research.datasets._log_mel import log_mel as log_mel
from research.datasets._python_help import python_help as python_help
from research.datasets._recordings import Recordings as Recordings
from research.datasets._recordings import official_split as official_split
from research.datasets._recordings import recordings as recordings
from research.datasets._recordings import speaker_folds as speaker_folds
from research.datasets._vowels import SequenceSplit as SequenceSplit
from research.datasets._vowels import vowels as vowels
from research.datasets._windows import window_starts as window_starts
from research.datasets._windows import windows as windows
from research.datasets.bundled import DATASETS as DATASETS
from research.datasets.bundled import Dataset as Dataset
from research.datasets.bundled import load as load
from research.datasets.generated import Function as Function
from research.datasets.generated import Problem as Problem
from research.datasets.generated import linear_problem as linear_problem
from research.datasets.generated import overlapping_classes as overlapping_classes
from research.datasets.generated import quadratic as quadratic
from research.datasets.generated import rosenbrock as rosenbrock
from research.datasets.generated import separable_classes as separable_classes
from research.datasets.preparation import check_xy as check_xy
from research.datasets.preparation import mean_and_sd as mean_and_sd
from research.datasets.preparation import split as split
from research.datasets.preparation import standardise as standardise
from research.datasets.sources import SOURCES as SOURCES
from research.datasets.table import table_rows as table_rows
from research.datasets.texts import Text as Text
from research.datasets.texts import text as text
from research.datasets.vocabulary import encode as encode
from research.datasets.vocabulary import make_vocabulary as make_vocabulary
