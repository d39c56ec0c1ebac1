"""Enclosure of a convolution, as a sum of products."""

from typing import Any

import numpy as np

from research.derivatives._float64 import in_float64
from research.derivatives.certified.intervals import FINE, Interval, multiply, total
from research.derivatives.costs.jaxprs import caller


def convolution(equation: Any, x: Interval, kernel: Interval) -> Interval:
    """Enclose the result of the jaxpr equation `conv_general_dilated`, a convolution.

    For each entry of the kernel, the function first finds the entries of x that are
    multiplied by this entry. To do so, JAX convolves the numbers 1, 2, 3, ..., in place
    of the entries of x, with a kernel that is 1 at this entry and 0 elsewhere. Then the
    function encloses the products, and the sum of the products over the entries of the
    kernel.

    Args:
      equation: Jaxpr equation of the convolution.
      x, kernel: Enclosures of the two inputs of the convolution.
    """
    numbers = np.arange(1.0, x.low.size + 1).reshape(x.low.shape)
    products_low, products_high, troubles = [], [], []
    flat_low = np.concatenate([np.zeros(1), x.low.reshape(-1)])
    flat_high = np.concatenate([np.zeros(1), x.high.reshape(-1)])
    trouble = np.broadcast_to(x.trouble, x.low.shape).reshape(-1)
    flat_trouble = np.concatenate([np.zeros(1, np.uint8), trouble])
    doubt = np.broadcast_to(kernel.trouble, kernel.low.shape).reshape(-1)
    for at in range(kernel.low.size):
        one = np.zeros(kernel.low.size)
        one[at] = 1.0
        with in_float64():
            met = np.asarray(
                caller(equation)([numbers, one.reshape(kernel.low.shape)])[0]
            )
        index = np.rint(met).astype(np.int64)
        weight_low = np.where(index > 0, kernel.low.reshape(-1)[at], 0.0)
        weight_high = np.where(index > 0, kernel.high.reshape(-1)[at], 0.0)
        product = multiply(
            Interval(weight_low, weight_high, np.where(index > 0, doubt[at], FINE)),
            Interval(flat_low[index], flat_high[index], flat_trouble[index]),
        )
        products_low.append(product.low)
        products_high.append(product.high)
        troubles.append(np.broadcast_to(product.trouble, product.low.shape))
    stacked = Interval(
        np.stack(products_low), np.stack(products_high), np.stack(troubles)
    )
    return total(stacked, (0,))
