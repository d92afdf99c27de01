"""`make bench`: graphlet beside its peers, on this machine. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from graphlet_bench import (
    http_load,
    kernels,
    machine,
    models,
    operators,
    peers,
    plots,
    process,
    report,
    rounds,
    targets,
)
from graphlet_bench.models import Model, ModelError, Place
from graphlet_bench.process import Placement
from graphlet_bench.rounds import Settings
from graphlet_bench.setup import Tools

# With --quick, peers besides ours and onnxruntime are spawned for this long.
QUICK_SECONDS = 90
# Beside what the networks of `--light` are measured.
LIGHT_PEERS = ("graphlet", "onnxruntime", "tract-wasmtime")
ROOT = Path(__file__).resolve().parents[2]
# What is known of a run while it lasts, and of one that was stopped.
PARTIAL = ROOT / "build" / "bench" / "partial"


def arguments() -> argparse.Namespace:
    """The command line; ROUNDS and RUNS of the environment are defaults."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures graphlet beside other runtimes: same models, same input, pinned to "
        "one core, in turns. Writes JSON, a Markdown table and plots.",
        epilog="A peer that cannot be set up is a row with its reason. Models and photographs "
        "come from ../shared or $GRAPHLET_SHARED; digits is in the repository.",
    )
    whole = [*models.TITLES]
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--quick", action="store_true", help="about two minutes: nothing is set up, no HTTP"
    )
    parser.add_argument(
        "--models", default=",".join(whole), help=f"some of {','.join(whole)} (default: all)"
    )
    parser.add_argument(
        "--light",
        action="store_true",
        default=bool(os.environ.get("LIGHT")),
        help="the other networks of onnx's wheel too, beside a few peers and in one round "
        "(or LIGHT=1): some minutes more",
    )
    parser.add_argument("--peers", help="keys of the results' rows (default: all)")
    parser.add_argument("--rounds", **number, help="processes per peer and model (default: 3)")
    parser.add_argument("--runs", **number, help="timed pictures per process (default: 20)")
    parser.add_argument(
        "--seconds", type=float, default=8, help="of load per step over HTTP (default: 8)"
    )
    parser.add_argument("--no-http", action="store_true", help="no load over HTTP")
    parser.add_argument("--no-operators", action="store_true", help="not the operator library")
    parser.add_argument("--no-kernels", action="store_true", help="not the kernels' own bench")
    parser.add_argument("--core", **number, help="core to measure on (default: the last)")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="SCHED_FIFO on that core, if permitted: for a machine that does other work, whose "
        "work on that core then waits",
    )
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--graphlet", type=Path, default=built / "release/graphlet")
    parser.add_argument(
        "--out", type=Path, help="default: docs/benchmarks for a whole run, else in build/bench"
    )
    parser.add_argument("--render", type=Path, metavar="RESULTS.json", help="only write again")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or int(os.environ.get("ROUNDS", "2" if asked.quick else "3"))
    asked.runs = asked.runs or int(os.environ.get("RUNS", "10" if asked.quick else "20"))
    asked.models = asked.models.split(",")
    less = set(whole) - set(asked.models) or asked.peers
    less = less or asked.no_http or asked.no_operators or asked.no_kernels
    part = "build/bench/quick" if asked.quick else "build/bench/part" if less else "docs/benchmarks"
    asked.out = asked.out or ROOT / part
    unknown = set(asked.models) - set(whole) - set(models.LIGHT)
    if asked.light:
        asked.models += [name for name in models.LIGHT if name not in asked.models]
    if unknown or asked.rounds < 1 or asked.runs < 1:
        parser.error(f"unknown models {sorted(unknown)}" if unknown else "at least one of each")
    return asked


def main() -> int:
    """Measures and writes; 130 after Ctrl-C."""
    asked = arguments()
    if asked.render:
        results = json.loads(asked.render.read_text())
        results["targets"] = targets.judge(results)
        write(results, asked.out)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    measured: dict[str, Any] = {}
    try:
        measure(asked, measured)
    except KeyboardInterrupt:
        process.kill_all()
        if not measured:
            print("\nstopped; nothing was measured", file=sys.stderr)
            return 130
        # Not over results of a whole run.
        keep(measured, PARTIAL)
        print(f"\nstopped; what was measured is in {PARTIAL}", file=sys.stderr)
        return 130
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write(measured, asked.out)
    print(report.markdown(measured))
    print(f"wrote {asked.out}", file=sys.stderr)
    wrong = [
        f"{model['title']}: {row['label']}"
        for model in measured["models"]
        for row in model.get("rows", [])
        if row["kind"] == "ours" and not row.get("output", {"right": True})["right"]
    ]
    if wrong:
        print(f"error: wrong output: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def measure(asked: argparse.Namespace, results: dict[str, Any]) -> None:
    """Everything that was asked for, into ``results``; what is there is kept after each part."""
    begun = time.monotonic()
    bold, plain = ("\033[1m", "\033[0m") if sys.stderr.isatty() else ("", "")

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - begun), 60)
        print(f"{bold}==>{plain} {minutes:3d}:{seconds:02d} {text}", file=sys.stderr, flush=True)

    if not asked.graphlet.exists():
        raise ModelError(f"{asked.graphlet} is not built: make build")
    cache = Path(
        os.environ.get("GRAPHLET_CACHE_DIR")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphlet"
    )
    tools = Tools(ROOT, cache / "bench", say, install=not asked.quick)
    tools.set_up()
    if not (asked.quick or asked.no_kernels):
        say("building the kernels' bench")
        with contextlib.suppress(kernels.KernelError):
            # What is wrong shows when it is run.
            kernels.build(ROOT)
    shared = Path(os.environ.get("GRAPHLET_SHARED") or ROOT.parent / "shared")
    litert = tools.python / "bin/python" if "litert" not in tools.reasons else None
    work = ROOT / "build" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    place = Place(ROOT, shared, work, asked.graphlet.resolve(), Path(sys.executable), litert)
    placement = Placement.find(asked.core, realtime=asked.realtime)
    settings = Settings(
        asked.rounds, asked.runs, cold=0 if asked.quick else 3, memory=not asked.quick
    )
    everyone = peers.all_peers(tools, place, placement)
    if asked.peers:
        wanted = {"graphlet", *asked.peers.split(",")}
        unknown = wanted - {peer.key for peer in everyone}
        if unknown:
            known = ", ".join(peer.key for peer in everyone)
            raise ModelError(f"no peers {sorted(unknown)}; there are {known}")
        everyone = [peer for peer in everyone if peer.key in wanted]
    results |= {
        "schema": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.describe(ROOT, asked.graphlet),
        "settings": {
            "rounds": asked.rounds,
            "runs": asked.runs,
            "placement": placement.describe(),
            "quick": asked.quick,
        },
        "models": [],
    }
    ready: dict[str, Model] = {}
    light = [name for name in asked.models if name in models.LIGHT]
    first = [name for name in asked.models if name not in models.LIGHT]

    def run(name: str, left: int) -> None:
        who, how = everyone, settings
        if name in models.LIGHT:
            who = [peer for peer in everyone if peer.key in LIGHT_PEERS]
            how = Settings(1, min(asked.runs, 5), cold=0, memory=False)
        try:
            model = models.prepare(place, name, say)
        except ModelError as error:
            title = (models.TITLES | models.LIGHT)[name]
            say(f"{title}: {error}")
            entry = {"name": name, "title": title, "rows": []}
            results["models"].append(entry | {"reason": str(error)})
            return
        ready[name] = model
        # What is left of the time is shared by the models that are left.
        now = time.monotonic()
        within = _before(now + (until - now) / left) if asked.quick else lambda: True
        rows = rounds.begin(model, who, tools)
        try:
            rounds.measure(model, rows, placement, how, say, within)
        finally:
            measured = {"rounds": how.rounds, "runs": how.runs}
            results["models"].append(rounds.as_json(model, rows) | measured)
            keep(results, PARTIAL)

    until = time.monotonic() + QUICK_SECONDS
    with _away_from(placement.core):
        for index, name in enumerate(first):
            run(name, len(asked.models) - index)
    served = ready.get("mobilenet_v2") or next(iter(ready.values()), None)
    if served is not None and not (asked.quick or asked.no_http):
        results |= _http(asked, place, tools, served, ready.get("digits"), say)
        keep(results, PARTIAL)
    if not (asked.quick or asked.no_operators):
        with _away_from(placement.core):
            results |= _operators(place, tools, placement, say)
        keep(results, PARTIAL)
    if not (asked.quick or asked.no_kernels):
        results |= _kernels(placement, say)
        keep(results, PARTIAL)
    # Last: what there are targets for is there by now.
    with _away_from(placement.core):
        for index, name in enumerate(light):
            run(name, len(light) - index)
    results |= judged(results)
    say("done")


def _before(limit: float) -> Callable[[], bool]:
    return lambda: time.monotonic() < limit


@contextlib.contextmanager
def _away_from(core: int) -> Iterator[None]:
    """This process, which watches, does not run where the others are measured."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) > 1:
        os.sched_setaffinity(0, allowed - {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _http(
    asked: argparse.Namespace,
    place: Place,
    tools: Tools,
    model: Model,
    small: Model | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    if "oha" in tools.reasons:
        return {"http": {"model": model.name, "reason": tools.reasons["oha"]}}
    try:
        load = http_load.throughput(place, model, small, tools.oha, asked.seconds, say)
    except ModelError as error:
        say(f"HTTP: not measured ({error})")
        return {"http": {"model": model.name, "reason": str(error)}}
    found: dict[str, Any] = {"http": load}
    if model.name == "mobilenet_v2":
        try:
            found["requests"] = _requests(asked, place, tools, model, say)
        except ModelError as error:
            say(f"one request at a time: not measured ({error})")
            found["requests_reason"] = str(error)
    return found


def _requests(
    asked: argparse.Namespace,
    place: Place,
    tools: Tools,
    model: Model,
    say: Callable[[str], None],
) -> dict[str, float]:
    """One request at a time: what is around the graph, a large photograph, a fresh instance."""
    say(f"{model.title}: one request at a time")
    photograph = place.shared / "images" / "daisy.jpg"
    large = place.work / "12-megapixels.jpg"
    with Image.open(photograph) as small:
        small.resize((4000, 3000), Image.Resampling.BICUBIC).save(large, quality=90)
    ordinary = http_load.waits(place, model, tools.oha, photograph, asked.seconds)
    twelve = http_load.waits(place, model, tools.oha, large, asked.seconds)
    found = {
        "p50_ms": ordinary["p50_ms"],
        "graph_ms": ordinary["graph_ms"],
        "around_the_graph_ms": round(ordinary["mean_ms"] - ordinary["graph_ms"], 3),
        "twelve_megapixels_ms": twelve["p50_ms"],
    }
    if http_load.offers_isolation(place):
        fresh = http_load.waits(place, model, tools.oha, photograph, asked.seconds, isolated=True)
        pooled = http_load.waits(place, model, tools.oha, photograph, asked.seconds)
        both = (ordinary["p50_ms"] + pooled["p50_ms"]) / 2
        found["fresh_instance_ms"] = round(fresh["p50_ms"] - both, 3)
    return found


def _operators(
    place: Place, tools: Tools, placement: Placement, say: Callable[[str], None]
) -> dict[str, Any]:
    try:
        return {"operators": operators.measure(place, tools, placement, say)}
    except (ModelError, process.PeerError) as error:
        say(f"operators: not measured ({error})")
        return {"operators": {"reason": str(error)}}


def _kernels(placement: Placement, say: Callable[[str], None]) -> dict[str, Any]:
    say("kernels beside the core's own loop (cargo bench -p operators --bench kernels)")
    try:
        return {"kernels": kernels.measure(ROOT, placement.command([]))}
    except kernels.KernelError as error:
        say(f"kernels: not measured ({error})")
        return {"kernels": None, "kernels_reason": str(error)}


def judged(results: dict[str, Any]) -> dict[str, Any]:
    """What is known by now, and what it says of the targets."""
    whole = {"load_after": round(os.getloadavg()[0], 2)} | results
    whole["targets"] = targets.judge(whole)
    return whole


def keep(results: dict[str, Any], out: Path) -> None:
    """JSON and table of what is known by now."""
    _tables(judged(results), out)


def _tables(results: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (out / "results.md").write_text(report.markdown(results))


def write(results: dict[str, Any], out: Path) -> None:
    """JSON, table and plots; plots of another run that this one has not are removed."""
    _tables(results, out)
    for old in out.glob("*.svg"):
        old.unlink()
    for name, text in plots.draw(results).items():
        (out / name).write_text(text)


if __name__ == "__main__":
    sys.exit(main())
