"""The models that are measured, each made ready once: module, tensors, and the peers' formats."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from graphlet_bench import process

Floats = NDArray[np.float32]
TITLES = {
    "digits": "digits",
    "mobilenet_v2": "MobileNetV2",
    "squeezenet1.0": "SqueezeNet 1.0",
    "resnet50": "ResNet50",
}
# The largest module that is verified (256 MiB), less what it has besides weights.
SERVED_BYTES = 256 * 2**20 - 4_000_000
# Of a model that is larger: VGG-19 takes 844 MB.
GRAPH_MEMORY = "2GiB"
# The other networks of onnx's wheel, with seeded weights; `--light` adds them.
LIGHT = {
    "light_squeezenet": "SqueezeNet 1.1 of onnx's wheel",
    "light_shufflenet": "ShuffleNet",
    "light_inception_v1": "Inception v1",
    "light_inception_v2": "Inception v2",
    "light_densenet121": "DenseNet-121",
    "light_bvlc_alexnet": "AlexNet",
    "light_zfnet512": "ZFNet-512",
    "light_vgg19": "VGG-19",
}


class ModelError(Exception):
    """A model cannot be measured; the text says why."""


@dataclass
class Place:
    """Where things are."""

    root: Path
    shared: Path
    work: Path
    graphlet: Path
    #: Python of the development environment
    python: Path
    #: Python with LiteRT, if it could be set up
    litert: Path | None

    def environment(self) -> dict[str, str]:
        """Keys and trust of the bench's own: a user's are not touched."""
        return {"GRAPHLET_CONFIG_DIR": str(self.work / "config")}


@dataclass(frozen=True)
class Graph:
    """What is known of a model that runs as a WASM graph."""

    #: of the input, NCHW
    shape: list[int]
    #: of the instance's memory, weights and all
    memory_bytes: int


@dataclass
class Model:
    """A model in a folder of its own, in which every peer runs."""

    name: str
    folder: Path
    onnx: str
    picture: Path
    #: what `graphlet inspect --json` says of the module
    card: dict[str, Any] = field(default_factory=dict)
    #: why a format of a peer could not be made, by the file's name without its end
    reasons: dict[str, str] = field(default_factory=dict)
    #: greatest difference between scores of the picture and of the tensor that peers get
    input_difference: float = 0.0
    #: set of a model that is too large to be signed and served: a WASM graph, given tensors
    graph: Graph | None = None

    @property
    def title(self) -> str:
        """As people write it."""
        return (TITLES | LIGHT)[self.name]

    @property
    def module(self) -> Path:
        """The signed module, or the WASM graph."""
        return self.folder / "module.wasm"

    @property
    def spec(self) -> dict[str, Any]:
        """`model.toml` as the module carries it."""
        return dict(self.card["model"]["spec"])

    @property
    def shape(self) -> list[int]:
        """Of the input, NCHW."""
        return self.graph.shape if self.graph else list(self.spec["input"]["shape"])

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes: of weights, activations and so on, as the module's card tells them."""
        if self.graph is not None:
            return {"memory": self.graph.memory_bytes}
        return dict(self.card["model"]["sizes"])


def prepare(place: Place, name: str, say: Callable[[str], None]) -> Model:
    """Builds the module and writes what peers read; raises ModelError."""
    folder = place.work / name
    folder.mkdir(parents=True, exist_ok=True)
    model = _collect(place, name, folder)
    say(f"{model.title}: building the module")
    if (folder / model.onnx).stat().st_size > SERVED_BYTES:
        _as_graph(place, model)
        return model
    toml = str(folder / "model.toml")
    graphlet(place, "build", "--quiet", toml, "-o", str(model.module))
    model.card = json.loads(graphlet(place, "inspect", "--json", str(model.module)))
    tensor = preprocess(model.spec, model.picture)
    tensor.astype("<f4").tofile(folder / "input.nchw")
    tensor.transpose(0, 2, 3, 1).astype("<f4").tofile(folder / "input.nhwc")
    if name not in LIGHT:
        _convert(place, model)
    _reference(place, model, tensor)
    return model


def graph_command(place: Place, model: Model, repeat: int) -> list[str]:
    """What runs a model of its kind on the tensor that peers get."""
    command = [str(place.graphlet), "graph", "run", "-g", str(model.module), "--json"]
    command += ["--dangerously-allow-unsigned", "--memory", GRAPH_MEMORY]
    return [*command, "--repeat", str(repeat), "--inputs", str(model.folder / "input.npy")]


def _as_graph(place: Place, model: Model) -> None:
    """Builds a WASM graph without claims, and writes an input of noise and what it makes of it."""
    source, output = model.folder / model.onnx, model.folder / "out-graphlet.npy"
    arguments = ["--as", "graph", "--unsigned", "--quiet", "-o", str(model.module)]
    graphlet(place, "build", str(source), *arguments)
    given = onnx.load(source, load_external_data=False).graph.input[0]
    shape = [extent.dim_value for extent in given.type.tensor_type.shape.dim]
    tensor = np.random.default_rng(0).standard_normal(shape, np.float32)
    np.save(model.folder / "input.npy", tensor)
    tensor.tofile(model.folder / "input.nchw")
    command = [*graph_command(place, model, 1), "--outputs", str(output)]
    told = json.loads(graphlet(place, *command[1:]))
    np.load(output).ravel().astype("<f4").tofile(model.folder / "out-graphlet.f32")
    model.graph = Graph(shape, told["memory_bytes"])


def _collect(place: Place, name: str, folder: Path) -> Model:
    """Copies, because a wasm peer sees this folder and nothing that a link leads out of it to."""
    light = name in LIGHT
    described = "resnet50" if light else name
    toml = (place.root / "models" / described / "model.toml").read_text()
    file = f"{name}.onnx"
    labels, picture = "imagenet_labels.txt", place.shared / "images" / "cat.png"
    source = place.shared / "models" / file
    if name == "digits":
        labels, picture = "labels.txt", place.root / "models" / "digits" / "samples" / "7.png"
        source = place.root / "models" / "digits" / file
    elif not (place.shared / "images").is_dir():
        raise ModelError("no shared models and photographs (GRAPHLET_SHARED)")
    if light or name == "resnet50":
        source = _seeded(place, name if light else "light_resnet50")
        output, kind = _output(source)
        toml = toml.partition("[output]")[0].replace("resnet50", name)
        toml += f'[output]\nname = "{output}"\nkind = "{kind}"\nlabels = "labels.txt"\n'
        (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(1000)))
    else:
        if not source.is_file():
            raise ModelError(f"put {file} into $GRAPHLET_SHARED/models")
        _copy(source.with_name(labels), folder / labels)
    (folder / "model.toml").write_text(toml)
    tuning = place.root / "models" / name / "tuning.json"
    if tuning.is_file():
        _copy(tuning, folder / tuning.name)
    target = folder / file
    if target.is_symlink() or not target.exists() or target.stat().st_size != source.stat().st_size:
        (_link if source.parent == place.work else _copy)(source, target)
    return Model(name, folder, file, picture.resolve())


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def _link(source: Path, target: Path) -> None:
    """A second name of what the bench itself has made; half a gigabyte is not copied."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _output(path: Path) -> tuple[str, str]:
    """What a classifier's one output is called, and whether it is probabilities."""
    graph = onnx.load(path, load_external_data=False).graph
    name = graph.output[0].name
    last = next(node for node in graph.node if name in node.output)
    return name, "softmax" if last.op_type == "Softmax" else "logits"


def _seeded(place: Place, name: str) -> Path:
    """A graph that onnx's wheel carries, with seeded weights, as the tests use it."""
    path = place.work / f"{name}.onnx"
    if not path.exists():
        script = place.root / "compiler" / "tests" / "light_models.py"
        environment = {**os.environ, "PYTHONPATH": str(place.root / "compiler")}
        command = [str(place.python), str(script), str(path), "--model", name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ModelError(f"{name} cannot be made: {done.stderr.strip()[-300:]}")
    return path


def graphlet(place: Place, *arguments: str) -> str:
    """What the command prints; raises ModelError when it fails."""
    environment = {**os.environ, **place.environment()}
    command = [str(place.graphlet), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModelError(f"graphlet {arguments[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout


def preprocess(spec: dict[str, Any], picture: Path) -> Floats:
    """The input tensor that the module makes of a picture; what it gives is compared with that.

    Resizes as Pillow does, which graphlet follows bit for bit; crops as torchvision does.
    """
    _, channels, height, width = spec["input"]["shape"]
    asked = spec["preprocess"]
    image: Image.Image = Image.open(picture).convert("L" if channels == 1 else "RGB")
    size = (width, height)
    if asked["resize"] == "shorter-side":
        side = asked["size"][0]
        w, h = image.size
        size = (side * w // h, side) if h <= w else (side, side * h // w)
    elif asked["resize"] != "exact":
        raise ModelError(f"the bench does not know resize = {asked['resize']!r}")
    image = image.resize(size, getattr(Image.Resampling, asked["filter"].upper()))
    left, top = (round((a - b) / 2) for a, b in zip(image.size, (width, height), strict=True))
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32)
    pixels = pixels.reshape(height, width, channels)
    if asked["channels"] == "BGR":
        pixels = pixels[..., ::-1]
    scale, mean, std = (np.array(asked[key], np.float64) for key in ("scale", "mean", "std"))
    factor, offset = (scale / std).astype(np.float32), (-mean / std).astype(np.float32)
    made: Floats = (pixels * factor + offset).transpose(2, 0, 1)[None].astype(np.float32)
    return np.ascontiguousarray(made)


def _convert(place: Place, model: Model) -> None:
    """The formats of TensorFlow's runtimes, from the same weights."""
    jobs: list[tuple[str, str, Path | None]] = [
        ("model.tflite", "tflite", place.litert),
        ("tfjs.json", "tfjs", place.python),
    ]
    environment = {**os.environ, "PYTHONPATH": str(place.root / "bench")}
    for target, module, python in jobs:
        if python is None:
            continue
        command = [str(python), "-m", f"graphlet_bench.{module}", model.onnx, target]
        done = subprocess.run(
            command, cwd=model.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            model.reasons[Path(target).stem] = (done.stderr.strip().splitlines() or ["no reason"])[
                -1
            ]


def _reference(place: Place, model: Model, tensor: Floats) -> None:
    """Ours, whole: what the module answers to the picture, and to the tensor that peers get."""
    given = model.spec["input"]["name"] or "input"
    picture = base64.b64encode(model.picture.read_bytes()).decode()
    with served(place, model.module, 1, place.work / "serve.log") as (url, _):
        asked = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [picture]}
        if given == "image":
            asked["name"] = "image_bytes"
        of_picture = scores(url, model.name, asked)
        values = {"name": given, "datatype": "FP32", "shape": model.shape}
        of_tensor = scores(url, model.name, values | {"data": tensor.ravel().tolist()})
    of_picture.astype("<f4").tofile(model.folder / "out-graphlet.f32")
    model.input_difference = float(np.abs(of_picture - of_tensor).max())


def scores(url: str, name: str, given: dict[str, Any]) -> Floats:
    """Probabilities by the Open Inference Protocol."""
    body = json.dumps({"inputs": [given], "outputs": [{"name": "scores"}]}).encode()
    request = urllib.request.Request(f"{url}/v2/models/{name}/infer", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return np.array(json.load(answer)["outputs"][0]["data"], np.float32)
    except urllib.error.HTTPError as error:
        raise ModelError(f"the module answers {error.code}: {error.read()[:300]!r}") from error


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def served(
    place: Place,
    module: Path,
    instances: int,
    log: Path,
    flags: Sequence[str] = (),
    core: int | None = None,
    admin: str = "off",
) -> Iterator[tuple[str, int]]:
    """`graphlet run` on a free port, ready; gives its address and process id.

    With ``core``, everything of it runs on that one. Its metrics are at ``admin``, an address and
    a port.
    """
    port = free_port()
    command = [str(place.graphlet), "run", str(module), "--listen", f"127.0.0.1:{port}"]
    variables = [f"{name}={value}" for name, value in place.environment().items()]
    command = ["env", *variables, *command, "--admin", admin, "--instances", str(instances), *flags]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    url = f"http://127.0.0.1:{port}"
    with process.serving(command, log) as pid:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5).close()
                break
            if time.monotonic() > deadline or not Path(f"/proc/{pid}").exists():
                raise ModelError(f"graphlet run did not become ready: see {log}")
            time.sleep(0.02)
        yield url, pid
