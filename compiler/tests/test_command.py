"""The program itself: events, exit codes, and files that are whole or not there."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import digits, model, node, picture, save, spec, weights

PACKAGE = Path(__file__).resolve().parents[1]
FILES = ["graph.json", "graph.o", "graph.params", "libgraph_wasm32.a", "report.json"]


def run(*arguments: object, cwd: Path, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, events and stderr of one call."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), **options.pop("env", {})}
    done = subprocess.run(
        [sys.executable, "-m", "graphlet_compiler", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a model and its specification."""
    save(digits(), tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(spec((1, 1, 28, 28))))
    return tmp_path


def compile_in(folder: Path, out: str = "out", *more: object, **options: Any) -> Any:
    arguments = ("compile", "--spec", "spec.json", "--onnx", "model.onnx", "--out", out, *more)
    return run(*arguments, cwd=folder, **options)


def test_compiling_tells_its_phases_and_writes_every_file(project: Path) -> None:
    code, events, _ = compile_in(project)
    assert code == 0
    phases = [event for event in events if event["event"] == "phase"]
    assert [p["index"] for p in phases] == list(range(1, len(phases) + 1))
    assert {p["of"] for p in phases} == {len(phases)}
    assert events[-1]["event"] == "done" and events[-1]["output"]["shape"] == [1, 10]
    assert sorted(p.name for p in (project / "out").iterdir()) == FILES

    graph = json.loads((project / "out/graph.json").read_text())
    assert graph["nodes"][0] == {"op": "null", "name": "x", "inputs": []}
    count = len(graph["nodes"])
    assert graph["node_row_ptr"] == list(range(count + 1)) and graph["heads"] == [[count - 1, 0, 0]]
    assert graph["attrs"].pop("consumed") == ["list_int", [0]]
    assert all(len(values) == count for _, values in graph["attrs"].values())
    names = [n["name"] for n in graph["nodes"]]
    assert {"Conv_c1", "Gemm_logits"} <= set(names)

    report = json.loads((project / "out/report.json").read_text())
    kernels = [n["kernel"] for n in report["nodes"]]
    assert (
        kernels.count("graphlet_conv2d_f32") == kernels.count("graphlet_conv2d_winograd_f32") == 1
    )
    assert not report["fallbacks"]
    assert report["versions"]["apache-tvm"] == "0.27.0.post1"
    assert report["param_bytes"] > 0 and report["peak_bytes"] <= report["activation_bytes"]
    assert report["operators"]["Conv"] == 2


def test_every_node_of_the_graph_has_a_name_of_its_own(tmp_path: Path) -> None:
    nodes = [node("Conv", "p0 w", "a"), node("Conv", "p0 v", "b"), node("Concat", "a b a", axis=1)]
    for one, name in zip(nodes, ("same", "same", "p1"), strict=True):
        one.name = name
    value = model(nodes, {"w": weights(6, 3, 1, 1), "v": weights(6, 3, 1, 1, seed=2)})
    value.graph.input[0].name = "p0"
    save(value, tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(spec((1, 3, 8, 8))))
    code, _, _ = compile_in(tmp_path)
    names = [n["name"] for n in json.loads((tmp_path / "out/graph.json").read_text())["nodes"]]
    assert code == 0 and len(set(names)) == len(names)
    assert names[0] == "p0" and {"same", "p1"} <= set(names)


def test_fallbacks_are_told_with_their_share(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "a"), node("ConvTranspose", "a v", "y")]
    value = model(nodes, {"w": weights(6, 3, 1, 1), "v": weights(6, 4, 3, 3)})
    save(value, tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(spec((1, 3, 8, 8))))
    code, events, _ = compile_in(tmp_path)
    (fallback,) = [event for event in events if event["event"] == "fallback"]
    assert code == 0 and fallback["node"] == "ConvTranspose_y"
    assert fallback["share"] == pytest.approx(36 / 39) and fallback["macs"] == 64 * 6 * 36


@pytest.mark.parametrize("simd", ["none", "simd128", "relaxed"])
def test_the_object_uses_no_more_vector_instructions_than_allowed(project: Path, simd: str) -> None:
    code, _, _ = compile_in(project, simd, "--simd", simd)
    assert code == 0
    features = target_features((project / simd / "graph.o").read_bytes())
    assert ("simd128" in features) == (simd != "none")
    assert ("relaxed-simd" in features) == (simd == "relaxed")


def target_features(wasm: bytes) -> set[str]:
    """Names in the `target_features` section of an object."""
    position = wasm.index(b"target_features") + len(b"target_features")
    count, position = wasm[position], position + 1
    names = set()
    for _ in range(count):
        length = wasm[position + 1]
        names.add(wasm[position + 2 : position + 2 + length].decode())
        position += 2 + length
    return names


def test_a_failure_is_one_error_event_and_writes_nothing(project: Path) -> None:
    (project / "model.onnx").write_bytes(b"")
    code, events, _ = compile_in(project)
    assert code == 1 and not (project / "out").exists()
    assert events[-1]["event"] == "error" and events[-1]["code"] == "corrupt_onnx"
    assert events[-1]["node"] == "" and isinstance(events[-1]["hint"], str)


def test_a_full_disk_is_named_and_leaves_what_was_there(project: Path) -> None:
    assert compile_in(project)[0] == 0
    before = {name: (project / "out" / name).read_bytes() for name in FILES}

    def limit() -> None:
        # No file larger than this: what a full disk or a quota does to a write.
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    for out in ("out", "fresh"):
        code, events, _ = compile_in(project, out, preexec_fn=limit)
        assert code == 1 and events[-1]["code"] == "disk_full", events
    assert {p.name: p.read_bytes() for p in (project / "out").iterdir()} == before
    assert not (project / "fresh").exists()


def test_wrong_usage_exits_with_2(project: Path) -> None:
    for arguments in ((), ("compile",), ("facts",), ("compile", "--simd", "avx")):
        code, events, stderr = run(*arguments, cwd=project)
        assert code == 2 and not events and "usage" in stderr


def test_facts_and_check_answer_with_one_object(project: Path) -> None:
    code, answers, _ = run("facts", "--onnx", "model.onnx", cwd=project)
    assert code == 0 and len(answers) == 1 and answers[0]["inputs"][0]["name"] == "x"
    arguments = ("check", "--spec", "spec.json", "--onnx", "model.onnx")
    code, answers, _ = run(*arguments, cwd=project)
    assert code == 0 and len(answers) == 1 and answers[0]["unsupported"] == []


def test_reference_runs_every_tensor_of_a_folder(project: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (project / "tensors").mkdir()
    for number in (2, 1):
        np.save(project / "tensors" / f"{number}.npy", picture(1, 1, 28, 28, seed=number))
    arguments = ("reference", "--spec", "spec.json", "--onnx", "model.onnx", "--tensors", "tensors")
    code, (answer,), _ = run(*arguments, cwd=project)
    assert code == 0 and [o["tensor"] for o in answer["outputs"]] == ["1.npy", "2.npy"]
    values = answer["outputs"][0]["values"]
    assert len(values) == 10 and sum(values) == pytest.approx(1, abs=1e-5)
    code, (answer,), _ = run(*arguments, "--out", "results", cwd=project)
    np.testing.assert_allclose(np.load(project / "results/1.npy").reshape(-1), values)

    np.save(project / "tensors" / "3.npy", picture(1, 1, 28, 27))
    code, (answer,), _ = run(*arguments, cwd=project)
    assert code == 1 and answer["code"] == "spec_mismatch" and "3.npy" in answer["message"]
