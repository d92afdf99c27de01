"""The same input gives the same bytes, wherever and whenever it is compiled."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
from models import digits, save, shared, spec
from test_command import PACKAGE, compile_in

ARTIFACTS = ["graph.json", "graph.params", "graph.o", "libgraph_wasm32.a", "report.json"]


def compile_twice(tmp_path: Path, onnx: Path, shape: tuple[int, ...]) -> list[dict[str, bytes]]:
    """Compiles in two folders, by two copies of the package, as two users in two time zones."""
    results = []
    for name, seed, zone in (("one", "1", "Asia/Tokyo"), ("another/place", "4242", "UTC")):
        folder = tmp_path / name
        (folder / "home").mkdir(parents=True)
        shutil.copytree(PACKAGE / "graphlet_compiler", folder / "code" / "graphlet_compiler")
        shutil.copy(onnx, folder / "model.onnx")
        (folder / "spec.json").write_text(json.dumps(spec(shape)))
        environment = {
            "PYTHONPATH": str(folder / "code"),
            "PYTHONHASHSEED": seed,
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "home" / "cache"),
            "TMPDIR": str(folder / "home"),
            "TZ": zone,
            "USER": name,
        }
        code, events, stderr = compile_in(folder, env=environment)
        assert code == 0, (events, stderr)
        results.append({file: (folder / "out" / file).read_bytes() for file in ARTIFACTS})
    return results


def computed_by_children() -> float:
    """Seconds of processor time that processes took which this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check_same_and_free_of_paths(tmp_path: Path, results: list[dict[str, bytes]]) -> None:
    for file in ARTIFACTS:
        assert results[0][file] == results[1][file], file
        if file != "graph.params":
            for secret in (str(tmp_path), "/tmp", str(PACKAGE), str(Path.home()), "site-packages"):
                assert secret.encode() not in results[0][file], (file, secret)


def test_a_small_model_compiles_to_the_same_bytes_everywhere(tmp_path: Path) -> None:
    onnx = save(digits(), tmp_path)
    results = compile_twice(tmp_path, onnx, (1, 1, 28, 28))
    check_same_and_free_of_paths(tmp_path, results)
    # The library holds the object alone, and no time, user or mode.
    library, member = results[0]["libgraph_wasm32.a"], results[0]["graph.o"]
    assert library.startswith(b"!<arch>\ngraph.o/ ") and library[68 : 68 + len(member)] == member
    assert len(library) == 68 + len(member) + len(member) % 2


def test_mobilenet_compiles_to_the_same_bytes_everywhere_and_fast(tmp_path: Path) -> None:
    onnx = shared() / "models" / "mobilenet_v2.onnx"
    if not onnx.exists():
        pytest.skip("skipped: mobilenet_v2.onnx is not here (GRAPHLET_SHARED)")
    begin = computed_by_children()
    results = compile_twice(tmp_path, onnx, (1, 3, 224, 224))
    # Of computing, which does not grow with what else the machine does: twice a few seconds.
    assert computed_by_children() - begin < 40
    check_same_and_free_of_paths(tmp_path, results)
