"""Owns: the published ways to store a matrix: for each, a plain quantiser, the tensors it writes, and the values that a
reader must find in them. Written from the formats' own definitions and independent of the engine's readers.

A function takes a float32 matrix [out, in] and gives (tensors, values): tensors by suffix, values as float32.
"""

import numpy as np


def bf16(values):
    """Rounds float32 to the nearest bf16, ties to even, and gives its bits."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Bf16(np.ndarray):
    """bf16 bits in an array of uint16: numpy has no such type, and the file must not call them U16."""


class Fp8(np.ndarray):
    """e4m3fn bits in an array of uint8."""


def plain(matrix):
    bits = bf16(matrix)
    return {".weight": bits.view(Bf16)}, widen(bits)


def pack_words(codes, bits):
    """Unsigned codes [..., n] as 32-bit words [..., ceil(n / per word)], the first code in the lowest bits."""
    per_word = 32 // bits
    missing = -codes.shape[-1] % per_word
    codes = np.concatenate([codes, np.zeros(codes.shape[:-1] + (missing,), codes.dtype)], axis=-1)
    codes = codes.reshape(codes.shape[:-1] + (-1, per_word)).astype(np.uint32)
    return (codes << (np.arange(per_word, dtype=np.uint32) * bits)).sum(axis=-1, dtype=np.uint32)


def fp8_table():
    """The value of every e4m3fn code: 4 exponent bits with bias 7, no infinity, and NaN only where all bits are set."""
    table = np.empty(256, dtype=np.float64)
    for code in range(256):
        sign = -1.0 if code & 0x80 else 1.0
        exponent, fraction = (code >> 3) & 15, code & 7
        value = fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7)
        table[code] = np.nan if (code & 0x7F) == 0x7F else sign * value
    return table


def fp8_blocks(matrix, block=128):
    table = fp8_table()
    finite = np.flatnonzero(~np.isnan(table))
    rows, cols = matrix.shape
    scales = np.empty((-(-rows // block), -(-cols // block)), dtype=np.float32)
    codes = np.empty(matrix.shape, dtype=np.uint8)
    values = np.empty(matrix.shape, dtype=np.float32)
    for i, j in np.ndindex(scales.shape):
        part = np.s_[i * block : (i + 1) * block, j * block : (j + 1) * block]
        scales[i, j] = np.abs(matrix[part]).max() / 448
        wanted = matrix[part].astype(np.float64) / scales[i, j]
        nearest = np.abs(wanted[..., None] - table[finite]).argmin(axis=-1)
        codes[part] = finite[nearest]
        values[part] = table[codes[part]].astype(np.float32) * scales[i, j]
    return {".weight": codes.view(Fp8), ".weight_scale_inv": scales}, values


def group_codes(matrix, groups, bits, symmetric, to_scale):
    """Nearest codes with one scale and zero point for each row and group; `groups` names the group of every column.
    `to_scale` rounds a scale to what its file can hold. Gives codes, zeros and scales, the last two [out, groups]."""
    count = groups.max() + 1
    top = (1 << bits) - 1
    codes = np.empty(matrix.shape, dtype=np.int64)
    zeros = np.empty((matrix.shape[0], count), dtype=np.int64)
    scales = np.empty((matrix.shape[0], count), dtype=np.float32)
    for g in range(count):
        part = matrix[:, groups == g].astype(np.float64)
        if symmetric:
            scale = np.abs(part).max(axis=1) / ((top - 1) / 2)
            zero = np.full(len(part), (top + 1) // 2)
        else:
            low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
            scale = (high - low) / top
            zero = np.clip(np.round(-low / scale), 0, top).astype(np.int64)
        scales[:, g] = to_scale(scale.astype(np.float32))
        zeros[:, g] = zero
        codes[:, groups == g] = np.clip(np.round(part / scales[:, g : g + 1]) + zero[:, None], 0, top)
    values = ((codes - zeros[:, groups]) * scales[:, groups].astype(np.float64)).astype(np.float32)
    return codes, zeros, scales, values


def column_groups(cols, group):
    return np.arange(cols) // group if group > 0 else np.zeros(cols, dtype=np.int64)


def activation_order(cols, group, seed):
    """Groups as they come when columns are quantised in the order of their importance, here a random one."""
    order = np.random.default_rng(seed).permutation(cols)
    groups = np.empty(cols, dtype=np.int64)
    groups[order] = np.arange(cols) // group
    return groups


def pack_quantized(matrix, bits, group, symmetric=True, order_seed=None):
    """compressed-tensors "pack-quantized"; group 0 is the channel strategy."""
    cols = matrix.shape[1]
    groups = column_groups(cols, group) if order_seed is None else activation_order(cols, group, order_seed)
    codes, zeros, scales, values = group_codes(matrix, groups, bits, symmetric, lambda s: widen(bf16(s)))
    tensors = {
        ".weight_packed": pack_words(codes, bits).view(np.int32),
        ".weight_scale": bf16(scales).view(Bf16),
        ".weight_shape": np.array(matrix.shape, dtype=np.int64),
    }
    if not symmetric:
        # Zero points are packed down the rows.
        tensors[".weight_zero_point"] = np.ascontiguousarray(pack_words(zeros.T, bits).T).view(np.int32)
    if order_seed is not None:
        tensors[".weight_g_idx"] = groups.astype(np.int32)
    return tensors, values


def gptq(matrix, bits, group, symmetric, version, order_seed=None):
    """Classic GPTQ: everything is stored [in, out]. Version 1 stores zero points minus one."""
    cols = matrix.shape[1]
    group = group if group > 0 else cols
    groups = column_groups(cols, group) if order_seed is None else activation_order(cols, group, order_seed)
    codes, zeros, scales, values = group_codes(matrix, groups, bits, symmetric, lambda s: np.float16(s).astype(np.float32))
    stored = (zeros - 1) & ((1 << bits) - 1) if version == 1 else zeros
    return {
        ".qweight": np.ascontiguousarray(pack_words(codes, bits).T).view(np.int32),
        ".qzeros": pack_words(np.ascontiguousarray(stored.T), bits).view(np.int32),
        ".scales": np.ascontiguousarray(np.float16(scales).T),
        ".g_idx": groups.astype(np.int32),
    }, values


def mlx_affine(matrix, bits, group):
    """MLX's affine mode: value = scale * code + bias. The end of the range that lies farther from zero becomes the bias,
    so that zero is hit exactly, and a scale may be negative. Leading dimensions are stacked matrices."""
    top = (1 << bits) - 1
    parts = matrix.reshape(matrix.shape[:-1] + (-1, group)).astype(np.float64)
    low, high = parts.min(axis=-1), parts.max(axis=-1)
    low_is_edge = np.abs(low) > np.abs(high)
    scales = np.maximum((high - low) / top, 1e-7) * np.where(low_is_edge, 1, -1)
    edge = np.where(low_is_edge, low, high)
    at_zero = np.round(edge / scales)
    scales = np.where(at_zero != 0, edge / np.where(at_zero != 0, at_zero, 1), scales)
    biases = np.where(at_zero != 0, edge, 0)
    scale_bits, bias_bits = bf16(scales), bf16(biases)
    scales, biases = widen(scale_bits).astype(np.float64)[..., None], widen(bias_bits).astype(np.float64)[..., None]
    codes = np.clip(np.round((parts - biases) / scales), 0, top).astype(np.int64)
    values = (codes * scales + biases).astype(np.float32).reshape(matrix.shape)
    return {
        ".weight": pack_words(codes.reshape(matrix.shape), bits),
        ".scales": scale_bits.view(Bf16),
        ".biases": bias_bits.view(Bf16),
    }, values
