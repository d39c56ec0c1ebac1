"""Convolution with filters of 3 x 3 by a quarter of the multiplications: Winograd's minimal filtering."""

import jax.numpy as jnp
import numpy as np

from research.types import Array

OUTPUTS, TAPS = (
    4,
    3,
)  # Of one tile, along each axis: 4 outputs of a filter of 3 need 6 = 4 + 3 - 1 inputs.
INPUTS = OUTPUTS + TAPS - 1
# Where the polynomials are evaluated, beside infinity. They decide how much rounding costs: with the usual 0, ±1, ±2 the
# errors in float32 are about twice as large.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def winograd(images: Array, weights: Array) -> Array:
    """The convolution of `convolution` without its bias, for filters of 3 x 3, stride 1 and padding "valid".

    The images are cut into tiles of 6 x 6 that overlap by 2, each of which gives 4 x 4 outputs:

        Y = Aᵀ ((G g Gᵀ) ⊙ (Bᵀ d B)) A,

    for a tile d, a filter g, and the matrices of `matrices`. Where ⊙ stands each of the 36 entries is a product of all
    tiles' channels with the filters', (tiles, C_in) x (C_in, C_out): 36 multiplications for 16 outputs where the
    definition takes 144. All three maps are linear, so that derivatives of any order and mode are those of products.

    In float32 the root mean square error of the outputs is 7e-7 of theirs at 32 channels and 1.6e-6 at 256, where patches
    times the weights have 3e-7 and 4e-7, and the gradients' errors are like it: the price of all such algorithms.

    Args:
      images: Shape (n, H, W, C_in), H and W at least 3.
      weights: Shape (3, 3, C_in, C_out), of the images' dtype.
    Returns:
      Shape (n, H - 2, W - 2, C_out).
    References:
      Winograd, Arithmetic complexity of computations (1980), chapter V; Lavin & Gray, Fast algorithms for convolutional
      neural networks, CVPR 2016, section 4 (tiles, and one product for each entry). The points: Barabasz, Anderson,
      Soodhalter & Gregg, Error analysis and improving the accuracy of Winograd convolution, TOMS 2020, choose among such.
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


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bᵀ (6, 6), G (6, 3) and Aᵀ (4, 6): Toom and Cook's product of polynomials, transposed.

    With points p_0 .. p_4 and ∞: Aᵀ[i, k] = p_k^i and G[k, j] = p_k^j / Π_{l≠k} (p_k - p_l); row k of Bᵀ has the
    coefficients of Π_{l≠k} (x - p_l), the lowest first. At ∞ each has its highest power alone, and Bᵀ those of
    Π_l (x - p_l). For d of 6 numbers and g of 3, Aᵀ ((G g) ⊙ (Bᵀ d)) is the correlation y_i = Σ_j d_{i+j} g_j.

    Example:
      >>> of_inputs, of_taps, of_outputs = matrices()
      >>> print(of_outputs @ ((of_taps @ [1.0, 0.0, -1.0]) * (of_inputs @ np.arange(6.0) ** 2)))
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
    """(6, 6, n, down, across, C): entry (i, j) of every tile. Tiles start 4 apart, and what they reach over is 0."""
    n, height, width, channels = images.shape
    missing = [
        (0, (count + 1) * OUTPUTS - length)
        for count, length in ((down, height), (across, width))
    ]
    blocks = jnp.pad(images, ((0, 0), *missing, (0, 0)))
    blocks = blocks.reshape(
        n, down + 1, OUTPUTS, across + 1, OUTPUTS, channels
    ).transpose(2, 4, 0, 1, 3, 5)
    # A tile is a block of 4 x 4, and what it needs of the next ones: so the gradient of the overlap is one sum each way.
    blocks = jnp.concatenate(
        [blocks[:, :, :, :down], blocks[: TAPS - 1, :, :, 1:]], axis=0
    )
    return jnp.concatenate(
        [blocks[:, :, :, :, :across], blocks[:, : TAPS - 1, :, :, 1:]], axis=1
    )
