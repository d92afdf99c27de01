"""Networks of after 2017 agree with onnxruntime, and nothing heavy of them is left to loops."""

from __future__ import annotations

import modern_models
import pytest
from test_numbers import agrees, kernels

SHAPE = (1, 3, 64, 64)

# One pass over memory each: gates, residuals and embeddings.
PASSES = {
    # Gates of small maps are left to TVM.
    "mobilenet_v3": ["Mul"] * 3,
    "mobilenet_v3_of_parts": ["Mul"] * 3,
    "mobilenet_v3_of_clip": ["Mul"] * 3,
    "efficientnet_lite": [],
    "efficientnet_b0": ["mul"] + ["Mul"] * 4,
    "vit": ["Concat"] + ["add"] * 5,
    "vit_of_parts": ["Concat"] + ["add"] * 5,
    "vit_of_tanh": ["Concat"] + ["add"] * 5,
}


@pytest.mark.parametrize("name", PASSES)
def test_a_modern_network_agrees_and_takes_kernels(name: str) -> None:
    executor = agrees(modern_models.MODELS[name](), SHAPE)
    assert not executor.refusals
    passes = [op for op in kernels(executor) if not op.islower() or op in ("add", "mul")]
    assert passes == PASSES[name]


def test_every_spelling_of_a_network_becomes_the_same_calls() -> None:
    networks = [["mobilenet_v3", "mobilenet_v3_of_parts", "mobilenet_v3_of_clip"]]
    networks.append(["vit", "vit_of_parts"])
    for names in networks:
        calls = [
            [n.kernel for n in agrees(modern_models.MODELS[name](), SHAPE).graph.nodes]
            for name in names
        ]
        assert all(len(found) == len(calls[0]) for found in calls)
        symbols = [[c and (c.symbol, c.activation) for c in found] for found in calls]
        assert all(found == symbols[0] for found in symbols)


def test_only_tensors_that_change_their_order_are_copied_by_a_transformer() -> None:
    executor = agrees(modern_models.vit(), SHAPE)
    transposes = [n for n in executor.graph.nodes if n.kernel and n.op == "Transpose"]
    # The patches; and in each of two blocks queries, keys and values at once, then the heads.
    assert len(transposes) == 5
    # Queries, keys and values lie behind one another in one tensor of three heads' worth each.
    offsets = [n.offsets for n in executor.graph.nodes if n.offsets]
    assert offsets == [{1: 65 * 96}, {1: 2 * 65 * 96}] * 2
    assert not {n.op for n in executor.graph.nodes} & {"Split", "Slice", "Squeeze", "Reshape"}


@pytest.mark.parametrize("name", list(PASSES))
def test_memory_is_planned_as_tightly_as_can_be(name: str) -> None:
    executor = agrees(modern_models.MODELS[name](), SHAPE)
    memory = executor.executor.memory()
    assert memory.activations <= 1.05 * memory.peak
    places, _ = executor.executor.plan()
    # The picture too lies there, and something else in its place later.
    assert executor.executor.consumed() == [0] and places[0].storage == 0
