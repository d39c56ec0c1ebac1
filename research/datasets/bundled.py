"""Small data sets that are part of scikit-learn and need no download."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped

from research.naming import known_names


class Dataset(NamedTuple):
    """A data set with its provenance.

    Attributes:
      name: Name of the data set, a key of `DATASETS`.
      x: Inputs, shape (n, d), float64.
      y: Targets, shape (n,): float64 for regression, and int64 labels in 0..K-1 for
        classification.
      feature_names: Name of each column of x.
      target_names: Name of each label. For regression, the name of the quantity y.
      source: Where the data come from.
      licence: Licence of the data, as stated by the source.
      citation: Publication to cite.
    """

    name: str
    x: Float64[np.ndarray, "n d"]
    y: Shaped[np.ndarray, "n"]
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    source: str
    licence: str
    citation: str


_UCI = "CC BY 4.0 (UCI Machine Learning Repository)"
_EFRON = (
    "scikit-learn, load_diabetes; first published at "
    "https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html",
    "distributed with scikit-learn (BSD-3-Clause); the original states no licence",
    "Efron, Hastie, Johnstone & Tibshirani (2004), Least Angle Regression, Annals of "
    "Statistics 32(2), 407-499",
)

# Name -> (loader of scikit-learn, arguments of the loader, (source, licence,
# citation)).
DATASETS: dict[str, tuple[str, dict[str, bool], tuple[str, str, str]]] = {
    "diabetes": ("load_diabetes", {}, _EFRON),
    "diabetes_raw": ("load_diabetes", {"scaled": False}, _EFRON),
    "breast_cancer": (
        "load_breast_cancer",
        {},
        (
            "scikit-learn, load_breast_cancer; https://doi.org/10.24432/C5DW2B",
            _UCI,
            "Wolberg, Mangasarian, Street & Street (1993), Breast Cancer Wisconsin "
            "(Diagnostic)",
        ),
    ),
    "digits": (
        "load_digits",
        {},
        (
            (
                "scikit-learn, load_digits; https://doi.org/10.24432/C50P49 (its "
                "test part)"
            ),
            _UCI,
            "Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits",
        ),
    ),
    "iris": (
        "load_iris",
        {},
        (
            "scikit-learn, load_iris; https://doi.org/10.24432/C56C76",
            _UCI,
            "Fisher (1936), The use of multiple measurements in taxonomic problems, "
            "Annals of Eugenics 7(2), 179-188",
        ),
    ),
    "wine": (
        "load_wine",
        {},
        (
            "scikit-learn, load_wine; https://doi.org/10.24432/C5PC7J",
            _UCI,
            "Aeberhard & Forina (1992), Wine, UCI Machine Learning Repository",
        ),
    ),
}


def load(name: str) -> Dataset:
    """Load a small data set that is part of scikit-learn.

    n is the number of examples and d the number of features.

    | name | n, d | y |
    |---|---|---|
    | diabetes | 442, 10 | disease progression after a year; columns of x have norm 1 |
    | diabetes_raw | 442, 10 | y of diabetes; x is not scaled (years, kg/m², ...) |
    | breast_cancer | 569, 30 | 0 = malignant, 1 = benign (scikit-learn's order) |
    | digits | 1797, 64 | digit 0..9; x are 8 by 8 images with intensities 0..16 |
    | iris | 150, 4 | species: 0 = setosa, 1 = versicolor, 2 = virginica |
    | wine | 178, 13 | cultivar: 0, 1 or 2 |

    Args:
      name: Name of the data set, a key of `DATASETS`.
    Returns:
      The data set with its provenance. Its arrays are copies that may be changed.
    Raises:
      ValueError: The name is unknown. The message suggests similar names.
    Example:
      >>> dataset = load("breast_cancer")
      >>> dataset.x.shape, dataset.target_names
      ((569, 30), ('malignant', 'benign'))
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(
            f"unknown dataset {name!r}{known_names(name, DATASETS)} Pass one of these "
            "names."
        )
    import sklearn.datasets  # Imported late because it takes half a second.

    loader, arguments, provenance = DATASETS[name]
    bunch = getattr(sklearn.datasets, loader)(**arguments)
    x = np.array(bunch.data, np.float64)
    if "target_names" in bunch:
        y, target_names = (
            np.array(bunch.target, np.int64),
            tuple(str(target) for target in bunch.target_names),
        )
    else:
        y, target_names = (
            np.array(bunch.target, np.float64),
            ("disease progression one year after baseline",),
        )
    return Dataset(
        name,
        x,
        y,
        tuple(str(feature) for feature in bunch.feature_names),
        target_names,
        *provenance,
    )
