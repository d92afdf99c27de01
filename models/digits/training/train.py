"""Trains the embedded digits model and writes digits.onnx and accuracy.json.

    python train.py [--steps 3000] [--seed 7] [--fonts /usr/share/fonts] [--out ..]

A convolutional network of 40 thousand weights on 32x32 grey pictures. One run takes about ten
minutes on two cores. README.md beside this file says what to install.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from augment import SIDE, batch, plain
from onnx import TensorProto, helper, numpy_helper
from sources import Masks, handwritten, printed

CHANNELS = (24, 40, 56)
CLASSES = 10
BATCH = 256
POOL = 16_384
HELD_OUT_SHARE = 0.2

Params = dict[str, jax.Array]


def initial(rng: np.random.Generator) -> Params:
    """He-scaled weights, zero biases."""
    params: Params = {}
    fan = 1
    for i, channels in enumerate(CHANNELS):
        shape = (channels, fan, 3, 3)
        params[f"w{i}"] = jnp.asarray(rng.normal(0, np.sqrt(2 / (fan * 9)), shape), jnp.float32)
        params[f"b{i}"] = jnp.zeros(channels, jnp.float32)
        fan = channels
    features = CHANNELS[-1] * (SIDE // 8) ** 2
    params["w"] = jnp.asarray(
        rng.normal(0, np.sqrt(1 / features), (features, CLASSES)), jnp.float32
    )
    params["b"] = jnp.zeros(CLASSES, jnp.float32)
    return params


def logits(params: Params, pictures: jax.Array, keep: jax.Array | None = None) -> jax.Array:
    """pictures: (n, 1, 32, 32) in -1..=1. `keep` masks features in training (dropout)."""
    x = pictures
    for i in range(len(CHANNELS)):
        x = jax.lax.conv_general_dilated(x, params[f"w{i}"], (1, 1), "SAME")
        x = jax.nn.relu(x + params[f"b{i}"][None, :, None, None])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(x.shape[0], -1)
    if keep is not None:
        x = x * keep
    return x @ params["w"] + params["b"]


def normalised(pictures: np.ndarray) -> jax.Array:
    """uint8 (n, 32, 32) to the network's input, as model.toml says: value / 127.5 - 1."""
    return jnp.asarray(pictures[:, None].astype(np.float32) / 127.5 - 1)


@jax.jit
def step(
    params: Params,
    m: Params,
    v: Params,
    t: jax.Array,
    rate: jax.Array,
    pictures: jax.Array,
    digits: jax.Array,
    key: jax.Array,
):
    """One step of Adam (beta 0.9, 0.999) on the cross entropy with labels smoothed by 0.05."""

    def loss(p: Params) -> jax.Array:
        keep = jax.random.bernoulli(key, 0.75, (pictures.shape[0], p["w"].shape[0])) / 0.75
        log_p = jax.nn.log_softmax(logits(p, pictures, keep))
        target = jax.nn.one_hot(digits, CLASSES) * 0.95 + 0.05 / CLASSES
        return -(target * log_p).sum(1).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, gradient)
    v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, gradient)
    params = jax.tree.map(
        lambda p, a, b: p - rate * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8),
        params,
        m,
        v,
    )
    return params, m, v, value


def correct(params: Params, pictures: np.ndarray, digits: np.ndarray) -> float:
    """Share of pictures whose largest logit is the digit's."""
    found = [
        np.asarray(logits(params, normalised(pictures[i : i + 512])).argmax(1))
        for i in range(0, len(pictures), 512)
    ]
    return float((np.concatenate(found) == digits).mean())


def accuracy(params: Params, masks: Masks, seed: int, copies: int) -> dict[str, float]:
    """Plain in both polarities, and `copies` random augmentations of each mask."""
    everything = np.tile(np.arange(len(masks.digit)), copies)
    pictures, digits = batch(masks, everything, np.random.default_rng(seed))
    return {
        "plain_light_on_dark": correct(
            params, np.stack([plain(m, False) for m in masks.ink]), masks.digit
        ),
        "plain_dark_on_light": correct(
            params, np.stack([plain(m, True) for m in masks.ink]), masks.digit
        ),
        "augmented": correct(params, pictures, digits),
    }


def export(params: Params, path: Path) -> None:
    """Writes the network as ONNX, opset 13, with the batch fixed at 1."""
    nodes, initializers, last = [], [], "image"

    def constant(name: str, value: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    for i in range(len(CHANNELS)):
        weight = constant(f"conv{i}.weight", np.asarray(params[f"w{i}"]))
        bias = constant(f"conv{i}.bias", np.asarray(params[f"b{i}"]))
        nodes.append(
            helper.make_node(
                "Conv",
                [last, weight, bias],
                [f"conv{i}"],
                f"conv{i}",
                pads=[1, 1, 1, 1],
                kernel_shape=[3, 3],
            )
        )
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"], f"relu{i}"))
        nodes.append(
            helper.make_node(
                "MaxPool",
                [f"relu{i}"],
                [f"pool{i}"],
                f"pool{i}",
                kernel_shape=[2, 2],
                strides=[2, 2],
            )
        )
        last = f"pool{i}"
    nodes.append(helper.make_node("Flatten", [last], ["features"], "flatten"))
    weight, bias = (
        constant("dense.weight", np.asarray(params["w"])),
        constant("dense.bias", np.asarray(params["b"])),
    )
    nodes.append(helper.make_node("Gemm", ["features", weight, bias], ["logits"], "dense"))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
        producer_name="graphlet models/digits/training",
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def pool_part(task: tuple[Masks, np.ndarray, int]) -> tuple[np.ndarray, np.ndarray]:
    """One worker's share of a pool of augmented pictures."""
    masks, picks, seed = task
    return batch(masks, picks, np.random.default_rng(seed))


def main() -> None:
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent)
    options = parser.parse_args()

    written, written_held = handwritten(HELD_OUT_SHARE, options.seed)
    print_, print_held, fonts, fonts_held = printed(options.fonts)
    print(
        f"{len(written.digit)} handwritten digits, {len(fonts)} fonts; "
        f"held out: {len(written_held.digit)} and {len(fonts_held)}",
        flush=True,
    )
    both = Masks(
        np.concatenate([written.ink, print_.ink]), np.concatenate([written.digit, print_.digit])
    )
    # Two thirds handwriting, one third print.
    weight = np.concatenate(
        [
            np.full(len(written.digit), 2 / 3 / len(written.digit)),
            np.full(len(print_.digit), 1 / 3 / len(print_.digit)),
        ]
    )

    rng = np.random.default_rng(options.seed)
    params = initial(rng)
    m = jax.tree.map(jnp.zeros_like, params)
    v = jax.tree.map(jnp.zeros_like, params)
    key = jax.random.key(options.seed)
    begun, losses = time.monotonic(), []
    # JAX has threads of its own, so workers are spawned, not forked.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as workers:
        parts = 4
        done = 0
        pending = None

        def order_pool(number: int):
            picks = rng.choice(len(both.digit), POOL, p=weight)
            return workers.map(
                pool_part,
                [
                    (both, picks[k::parts], options.seed * 1_000_003 + number * parts + k)
                    for k in range(parts)
                ],
            )

        pending, number = order_pool(0), 0
        while done < options.steps:
            made = list(pending)
            pictures, digits = (
                np.concatenate([p for p, _ in made]),
                np.concatenate([d for _, d in made]),
            )
            number += 1
            pending = order_pool(number)
            for _ in range(2):  # each pool is seen twice
                for at in rng.permutation(POOL).reshape(-1, BATCH):
                    if done == options.steps:
                        break
                    done += 1
                    rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * done / options.steps)) + 1e-5
                    key, sub = jax.random.split(key)
                    params, m, v, value = step(
                        params,
                        m,
                        v,
                        jnp.float32(done),
                        jnp.float32(rate),
                        normalised(pictures[at]),
                        jnp.asarray(digits[at]),
                        sub,
                    )
                    losses.append(float(value))
            print(
                f"step {done}/{options.steps}  loss {np.mean(losses[-64:]):.3f}  "
                f"{time.monotonic() - begun:.0f} s",
                flush=True,
            )
        workers.shutdown(cancel_futures=True)

    report = {
        "seed": options.seed,
        "steps": options.steps,
        "weights": int(sum(p.size for p in params.values())),
        "handwritten": {
            "training": len(written.digit),
            "held_out": len(written_held.digit),
            "accuracy": accuracy(params, written_held, 1, 10),
        },
        "fonts": {
            "training": fonts,
            "held_out": fonts_held,
            "accuracy": accuracy(params, print_held, 2, 20),
        },
    }
    export(params, options.out / "digits.onnx")
    (options.out / "accuracy.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({k: report[k]["accuracy"] for k in ("handwritten", "fonts")}, indent=2))


if __name__ == "__main__":
    main()
