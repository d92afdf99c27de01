"""Who is measured, and how each is started.

A peer is a process that gets a model and an input tensor, runs it, prints when it knows its first
label, and then the milliseconds of each run. All of them run in the model's folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphlet_bench import machine, models, process
from graphlet_bench.models import Model, Place
from graphlet_bench.process import Placement, Spawned
from graphlet_bench.setup import Tools

# A browser's folder, for as long as it runs.
PROFILE = "chromium-profile"
# Does V8 take relaxed SIMD? The module is one i8x16.relaxed_swizzle.
_RELAXED = (
    "process.exit(WebAssembly.validate(new Uint8Array([0,97,115,109,1,0,0,0,1,5,1,96,0,1,123,3,2,"
    "1,0,10,15,1,13,0,65,1,253,15,65,2,253,15,253,128,2,11]))?0:1)"
)


@dataclass(frozen=True)
class Job:
    """What one process shall do."""

    model: Model
    runs: int
    warmup: int
    output: str


@dataclass
class Peer:
    """A runtime in one surrounding."""

    key: str
    label: str
    #: "ours", "native" or "wasm"
    kind: str
    version: str
    #: the steps of set-up that it needs
    needs: tuple[str, ...]
    command: Callable[[Job], list[str]]
    #: the model's file, and files of the runtime besides: their sizes are told
    model_file: Callable[[Model], Path]
    runtime_files: list[Path] = field(default_factory=list)
    #: whether the whole process may have real-time priority, if any has
    realtime: bool = True
    environment: dict[str, str] = field(default_factory=dict)

    def reason(self, tools: Tools, model: Model) -> str | None:
        """Why it cannot run this model, if it cannot."""
        for need in self.needs:
            if need in tools.reasons:
                return tools.reasons[need]
        return model.reasons.get(self.model_file(model).stem)

    def spawn(self, job: Job, placement: Placement | None, *, sample: bool = False) -> Spawned:
        """Runs one process to its end; raises process.PeerError."""
        command = self.command(job)
        if placement is not None:
            command = placement.command(command, realtime=self.realtime)
        try:
            spawned = process.run(
                command,
                timeout=min(120 + 4 * (job.runs + job.warmup), 600),
                environment=self.environment,
                folder=job.model.folder,
                sample=sample,
            )
        finally:
            shutil.rmtree(job.model.folder / PROFILE, ignore_errors=True)
        if self.key == "graphlet":
            spawned.events = [_classified(event) for event in spawned.events]
        return spawned


def _classified(event: dict[str, Any]) -> dict[str, Any]:
    """What `graphlet classify` or `graph run --json` prints, in the form that peers print."""
    if event.get("error"):
        raise process.PeerError(str(event["error"]))
    phases = event.get("milliseconds", {})
    if "run" in phases:
        return {"event": "done", "ms": [phases["run"]]}
    return {"event": "done", "ms": [phases["infer"]], "phases": phases}


def all_peers(tools: Tools, place: Place, placement: Placement) -> list[Peer]:
    """Ours first, then native runtimes, then those in wasm."""
    node = ["node", *(_relaxed_flag() or [])]
    scripts, packages = tools.javascript, tools.javascript / "node_modules"
    litert_js = packages / "@litertjs" / "core" / "wasm"
    site = _site_packages(place.python)
    litert_site = _site_packages(tools.python / "bin" / "python")
    python = tools.bench / "python"
    chromium = machine.chromium() or "chromium"

    def module(model: Model) -> Path:
        return model.module

    def onnx(model: Model) -> Path:
        return model.folder / model.onnx

    def tflite(model: Model) -> Path:
        return model.folder / "model.tflite"

    def tfjs(model: Model) -> Path:
        return model.folder / "tfjs.json"

    # V8 has threads of its own, which must not wait for its main one: that gets the core alone,
    # and only while it is timed.
    timed = ["--realtime", process.REALTIME_PRIORITY] if placement.realtime else []

    def script(name: str, file: Callable[[Model], Path], layout: str) -> Any:
        return lambda job: [*node, str(scripts / name), *_arguments(job, file, layout), *timed]

    def ours(job: Job) -> list[str]:
        # One cold picture, then as many as are timed; the command answers with the median.
        repeat = job.warmup + job.runs + 1
        if job.model.graph is not None:
            return models.graph_command(place, job.model, repeat)
        arguments = ["classify", "--json", "--repeat", str(repeat), str(job.model.module)]
        return [str(place.graphlet), *arguments, str(job.model.picture)]

    def ours_in_node(job: Job) -> list[str]:
        command = [*node, str(scripts / "wapc.mjs"), *_arguments(job, module, "nchw")]
        at = command.index("--input") + 1
        command[at] = str(job.model.picture)
        return [*command, "--name", job.model.name, *timed]

    def in_chromium(job: Job) -> list[str]:
        command = ["node", str(scripts / "litert_chromium.mjs"), *_arguments(job, tflite, "nhwc")]
        command += ["--browser", chromium, "--profile", str(job.model.folder / PROFILE)]
        return [*command, *timed]

    def native(binary: Path) -> Callable[[Job], list[str]]:
        return lambda job: [str(binary), *_arguments(job, onnx, "nchw")]

    def in_wasmtime(name: str) -> Callable[[Job], list[str]]:
        runner, code = tools.native("wasi-run"), tools.wasm(name, "cwasm")
        return lambda job: [str(runner), "run", str(code), ".", *_arguments(job, onnx, "nchw")]

    def interpreter(python_path: Path, name: str, file: Any, layout: str) -> Any:
        start = [str(python_path), str(python / name)]
        return lambda job: [*start, *_arguments(job, file, layout)]

    litert = _wheel_version(litert_site, "ai_edge_litert")
    versions = {name: _npm_version(packages / name) for name in _NPM}
    rust = locked_versions(tools.bench / "peers" / "Cargo.lock")
    wasmtime = rust["wasmtime"]
    in_node = machine.output(["node", "--version"]) or "?"
    tf_wasm = packages / "@tensorflow" / "tfjs-backend-wasm" / "dist"
    ort_js = packages / "onnxruntime-web" / "dist"
    return [
        Peer(
            "graphlet",
            "graphlet (wasmtime)",
            "ours",
            (machine.output([str(place.graphlet), "--version"]) or "?").split(" ")[-1],
            (),
            ours,
            module,
            [place.graphlet],
            environment=place.environment(),
        ),
        Peer(
            "graphlet-node",
            "graphlet's module in node",
            "ours",
            in_node,
            ("node",),
            ours_in_node,
            module,
            realtime=False,
        ),
        Peer(
            "onnxruntime",
            "onnxruntime",
            "native",
            _wheel_version(site, "onnxruntime"),
            (),
            interpreter(place.python, "onnxruntime_native.py", onnx, "nchw"),
            onnx,
            sorted((site / "onnxruntime" / "capi").glob("*.so")),
        ),
        Peer(
            "litert",
            "LiteRT (TFLite, XNNPACK)",
            "native",
            litert,
            ("litert",),
            interpreter(tools.python / "bin" / "python", "litert_native.py", tflite, "nhwc"),
            tflite,
            sorted((litert_site / "ai_edge_litert").glob("*.so")),
        ),
        Peer(
            "rten",
            "rten",
            "native",
            rust["rten"],
            ("rust",),
            native(tools.native("rten-peer")),
            onnx,
            [tools.native("rten-peer")],
        ),
        Peer(
            "tract",
            "tract",
            "native",
            rust["tract-onnx"],
            ("rust",),
            native(tools.native("tract-peer")),
            onnx,
            [tools.native("tract-peer")],
        ),
        Peer(
            "litert-chromium",
            "LiteRT.js in Chromium",
            "wasm",
            versions["@litertjs/core"],
            ("node", "litert", "chromium"),
            in_chromium,
            tflite,
            [litert_js / "litert_wasm_internal.wasm", litert_js / "litert_wasm_internal.js"],
            realtime=False,
        ),
        Peer(
            "litert-node",
            "LiteRT.js in node",
            "wasm",
            versions["@litertjs/core"],
            ("node", "litert"),
            script("litert_node.mjs", tflite, "nhwc"),
            tflite,
            [litert_js / "litert_wasm_internal.wasm", litert_js / "litert_wasm_internal.js"],
            realtime=False,
        ),
        Peer(
            "tfjs",
            "tfjs-backend-wasm in node",
            "wasm",
            versions["@tensorflow/tfjs-backend-wasm"],
            ("node",),
            script("tfjs.mjs", tfjs, "nhwc"),
            lambda model: model.folder / "tfjs.bin",
            [tf_wasm / "tfjs-backend-wasm-simd.wasm", tf_wasm / "tf-backend-wasm.node.js"],
            realtime=False,
        ),
        Peer(
            "onnxruntime-web",
            "onnxruntime-web in node",
            "wasm",
            versions["onnxruntime-web"],
            ("node",),
            script("ort_web.mjs", onnx, "nchw"),
            onnx,
            [ort_js / "ort-wasm-simd-threaded.wasm", ort_js / "ort.wasm.min.mjs"],
            realtime=False,
        ),
        Peer(
            "tract-wasmtime",
            f"tract in wasmtime {wasmtime}",
            "wasm",
            rust["tract-onnx"],
            ("wasi",),
            in_wasmtime("tract-peer"),
            onnx,
            [tools.wasm("tract-peer")],
        ),
        Peer(
            "rten-wasmtime",
            f"rten in wasmtime {wasmtime}",
            "wasm",
            rust["rten"],
            ("wasi",),
            in_wasmtime("rten-peer"),
            onnx,
            [tools.wasm("rten-peer")],
        ),
    ]


_NPM = ("@litertjs/core", "@tensorflow/tfjs-backend-wasm", "onnxruntime-web")


def _arguments(job: Job, file: Callable[[Model], Path], layout: str) -> list[str]:
    n, c, h, w = job.model.shape
    shape = (n, c, h, w) if layout == "nchw" else (n, h, w, c)
    settings = {
        "model": file(job.model).name,
        "input": f"input.{layout}",
        "shape": ",".join(map(str, shape)),
        "runs": str(job.runs),
        "warmup": str(job.warmup),
        "output": job.output,
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _relaxed_flag() -> list[str] | None:
    """What makes node take relaxed SIMD; ``None`` when it needs nothing or cannot."""
    flag = "--experimental-wasm-relaxed-simd"
    if machine.succeeds(["node", "-e", _RELAXED]):
        return None
    return [flag] if machine.succeeds(["node", flag, "-e", _RELAXED]) else None


def _site_packages(python: Path) -> Path:
    found = sorted((python.parent.parent / "lib").glob("python3*/site-packages"))
    return found[0] if found else Path("/nonexistent")


def _wheel_version(site: Path, package: str) -> str:
    found = next(iter(site.glob(f"{package}-*.dist-info")), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else "?"


def _npm_version(folder: Path) -> str:
    try:
        return str(json.loads((folder / "package.json").read_text())["version"])
    except OSError:
        return "?"


def locked_versions(lock: Path) -> dict[str, str]:
    """Name and version of each package of a Cargo.lock; of two versions, the last."""
    found, name = {}, ""
    for line in lock.read_text().splitlines():
        key, _, value = line.partition(" = ")
        if key == "name":
            name = value.strip('"')
        elif key == "version" and name:
            found[name] = value.strip('"')
    return found
