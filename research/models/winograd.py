"""Winograd's algorithm for convolution with 3 x 3 filters."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.types import Array

# Along each axis of a tile, 4 outputs of a filter of 3 need 6 = 4 + 3 - 1 inputs.
OUTPUTS, TAPS = 4, 3
INPUTS = OUTPUTS + TAPS - 1
# Evaluation points of the polynomials, besides infinity. They determine the rounding
# error; the usual points 0, ±1, ±2 have about twice the error in float32.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def winograd(
    images: Float[Array, "n H W C_in"], weights: Float[Array, "3 3 C_in C_out"]
) -> Float[Array, "n H-2 W-2 C_out"]:
    """Convolve images with 3 x 3 filters by Winograd's minimal filtering.

    The result is that of `convolution` with stride 1, padding "valid" and no bias, up
    to rounding errors. The images are cut into tiles of 6 x 6 pixels that overlap by 2
    pixels. Each tile gives a matrix Y of 4 x 4 outputs:

        Y = Aᵀ ((G g Gᵀ) ⊙ (Bᵀ d B)) A,

    for a tile d, a filter g and the matrices Bᵀ, G and Aᵀ that the function `matrices`
    returns. For each of the 36 entries of the elementwise product ⊙, one matrix product
    (tiles, C_in) x (C_in, C_out) treats all tiles and channels. So the 16 outputs of a
    tile need 36 multiplications for each pair of an input and an output channel,
    instead of 16 * 9 = 144. Y is linear in d and in g, so derivatives of any order, in
    forward and reverse mode, consist of the same kind of products.

    The rounding errors of the outputs and the gradients are about two to four times
    those of the direct sum over the pixels of the filter.

    Args:
      images: Images, shape (n, H, W, C_in), H and W at least 3.
      weights: Filters, shape (3, 3, C_in, C_out), in the images' dtype.
    Returns:
      The output images, shape (n, H - 2, W - 2, C_out).
    References:
      Winograd, Arithmetic complexity of computations (1980), chapter V.
      Lavin & Gray, Fast algorithms for convolutional neural networks, CVPR 2016,
      section 4 (tiles, one product for each entry).
      Barabasz, Anderson, Soodhalter & Gregg, Error analysis and improving the accuracy
      of Winograd convolution, TOMS 2020 (the choice of the interpolation points from
      which `matrices` computes Bᵀ, G and Aᵀ).
    Example:
      >>> image = jnp.arange(25.0).reshape(1, 5, 5, 1)
      >>> print(jnp.rint(winograd(image, jnp.ones((3, 3, 1, 1))))[0, ..., 0])
      [[ 54.  63.  72.]
       [ 99. 108. 117.]
       [144. 153. 162.]]
    """
    (n, *size, channels), outputs = images.shape, weights.shape[-1]
    height, width = (length - TAPS + 1 for length in size)
    down, across = -(-height // OUTPUTS), -(-width // OUTPUTS)
    of_inputs, of_taps, of_outputs = (
        jnp.asarray(np.kron(m, m), images.dtype) for m in matrices()
    )
    tiles, numbers = _tiles(images, down, across), INPUTS**2
    tiles = (of_inputs @ tiles.reshape(numbers, -1)).reshape(
        numbers, n * down * across, channels
    )
    filters = (of_taps @ weights.reshape(TAPS**2, -1)).reshape(
        numbers, channels, outputs
    )
    products = tiles @ filters
    y = (of_outputs @ products.reshape(numbers, -1)).reshape(
        OUTPUTS, OUTPUTS, n, down, across, outputs
    )
    y = y.transpose(2, 3, 0, 4, 1, 5).reshape(
        n, down * OUTPUTS, across * OUTPUTS, outputs
    )
    return y[:, :height, :width]


def matrices() -> tuple[
    Float[np.ndarray, "6 6"], Float[np.ndarray, "6 3"], Float[np.ndarray, "4 6"]
]:
    """Return the matrices Bᵀ (6, 6), G (6, 3) and Aᵀ (4, 6) of Winograd's algorithm.

    For inputs d of 6 numbers and a filter g of 3 numbers (taps), the outputs Aᵀ ((G g)
    ⊙ (Bᵀ d)) are the correlation y_i = Σ_j d_{i+j} g_j, with i = 0, ..., 3 and j = 0,
    1, 2. The product ⊙ is elementwise. The matrices come from the Toom-Cook algorithm,
    which finds the product of two polynomials from their values at interpolation
    points.

    The points are p_0, ..., p_4 = 0, 0.75, -0.75, 1.5, -1.5, and ∞. For k = 0, ..., 4,
    Aᵀ[i, k] = p_k^i and G[k, j] = p_k^j / Π_{l≠k} (p_k - p_l). Row k of Bᵀ contains the
    coefficients of the polynomial Π_{l≠k} (x - p_l) in x, the lowest power first, and
    then a 0. The point ∞ gives the last column of Aᵀ and the last rows of G and Bᵀ. The
    last column of Aᵀ and the last row of G are 0, except for a 1 as their last entry.
    The last row of Bᵀ contains the coefficients of Π_l (x - p_l).

    Example:
      >>> of_inputs, of_taps, of_outputs = matrices()
      >>> filtered = of_taps @ [1.0, 0.0, -1.0]
      >>> print(of_outputs @ (filtered * (of_inputs @ np.arange(6.0) ** 2)))
      [ -4.  -8. -12. -16.]
    """
    points = np.array(POINTS)
    others = [np.delete(points, k) for k in range(len(points))]
    scales = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    last = lambda n: np.eye(n)[-1]
    of_inputs = np.array(
        [np.append(np.poly(rest)[::-1], 0.0) for rest in others]
        + [np.poly(points)[::-1]]
    )
    of_taps = np.array(
        [p ** np.arange(TAPS) / s for p, s in zip(points, scales, strict=True)]
        + [last(TAPS)]
    )
    of_outputs = np.column_stack(
        [points[None] ** np.arange(OUTPUTS)[:, None], last(OUTPUTS)]
    )
    return of_inputs, of_taps, of_outputs


def _tiles(images: Array, down: int, across: int) -> Array:
    """Cut images into tiles, shape (6, 6, n, down, across, C).

    The first two axes are the row and the column in a tile. A tile starts every 4
    pixels. Pixels beyond the image are 0.
    """
    n, height, width, channels = images.shape
    missing = [
        (0, (count + 1) * OUTPUTS - length)
        for count, length in ((down, height), (across, width))
    ]
    blocks = jnp.pad(images, ((0, 0), *missing, (0, 0)))
    blocks = blocks.reshape(
        n, down + 1, OUTPUTS, across + 1, OUTPUTS, channels
    ).transpose(2, 4, 0, 1, 3, 5)
    # A tile is a block of 4 x 4 plus the edges of the next blocks, so the gradient of
    # the overlap is one sum per axis.
    blocks = jnp.concatenate(
        [blocks[:, :, :, :down], blocks[: TAPS - 1, :, :, 1:]], axis=0
    )
    return jnp.concatenate(
        [blocks[:, :, :, :, :across], blocks[:, : TAPS - 1, :, :, 1:]], axis=1
    )
