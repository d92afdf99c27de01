"""Packed weights hold the weights, in the documented order, with zeros in the tails."""

from __future__ import annotations

import numpy as np
import pytest
from models import weights

from graphlet_compiler import packing


@pytest.mark.parametrize(("oc", "groups"), [(8, 1), (13, 1), (24, 3), (10, 2), (6, 6)])
def test_a_convolution_packs_eight_output_channels_side_by_side(oc: int, groups: int) -> None:
    icg, kh, kw = 3, 2, 5
    weight = weights(oc, icg, kh, kw)
    packed = packing.pack_conv(weight, groups)
    ocg = oc // groups
    blocks = -(-ocg // 8)
    assert packed.shape == (groups, blocks, icg * kh * kw, 8) and packed.flags.c_contiguous
    for group, block, lane in np.ndindex(groups, blocks, 8):
        channel = block * 8 + lane
        found = packed[group, block, :, lane].reshape(icg, kh, kw)
        if channel < ocg:
            np.testing.assert_array_equal(found, weight[group * ocg + channel])
        else:
            assert not found.any()


def test_the_bias_of_a_convolution_is_padded_group_by_group() -> None:
    packed = packing.pack_conv_bias(np.arange(1.0, 11.0), 2)
    assert packed.tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 6, 7, 8, 9, 10, 0, 0, 0]
    assert packed.dtype == np.float32


@pytest.mark.parametrize("oc", [8, 11])
def test_winograd_packs_filters_whose_products_are_convolutions(oc: int) -> None:
    ic = 3
    weight = weights(oc, ic, 3, 3)
    packed = packing.pack_winograd(weight)
    assert packed.shape == (36, -(-oc // 8), ic, 8) and packed.flags.c_contiguous
    assert not packed[:, -1, :, oc % 8 or 8 :].any()
    at_points = packed.transpose(0, 1, 3, 2).reshape(6, 6, -1, ic)[:, :, :oc]
    # At infinity lies the last tap; at a point the polynomial over its denominator.
    np.testing.assert_allclose(at_points[5, 5], weight[:, :, 2, 2], rtol=1e-6)
    point, slope = 1.5, 2 * 1.5**2 * (1.5**2 - 0.625**2)
    powers = np.array([1, point, point**2]) / slope
    expected = np.einsum("a,ocab,b->oc", powers, weight.astype(np.float64), powers)
    np.testing.assert_allclose(at_points[3, 3], expected, rtol=1e-6)


def test_a_depthwise_filter_is_plain() -> None:
    weight = weights(5, 1, 3, 3)
    np.testing.assert_array_equal(packing.pack_depthwise(weight), weight.reshape(5, 9))


@pytest.mark.parametrize("n", [1, 32, 33, 100])
def test_a_dense_layer_packs_thirty_two_outputs_side_by_side(n: int) -> None:
    weight = weights(7, n)
    packed = packing.pack_dense(weight)
    assert packed.shape == (-(-n // 32), 7, 32) and packed.flags.c_contiguous
    unpacked = packed.transpose(1, 0, 2).reshape(7, -1)
    np.testing.assert_array_equal(unpacked[:, :n], weight)
    assert not unpacked[:, n:].any()
    bias = packing.pack_dense_bias(np.ones(n))
    assert bias.shape == (packed.shape[0] * 32,) and bias.sum() == n
