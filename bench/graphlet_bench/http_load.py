"""What a served model does under load: requests a second, waiting times, memory of processes.

The load generator, oha, runs on the same machine and takes a little of it, which is told; it
speaks HTTP over loopback, keeps its connections open, and sends one picture again and again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import statistics
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphlet_bench import capacity, machine, process, stats
from graphlet_bench.models import Model, ModelError, Place, free_port, served


def load(
    oha: Path,
    url: str,
    picture: Path,
    connections: int,
    seconds: float,
    folder: Path,
    before: Sequence[str] = (),
) -> dict[str, float]:
    """Sends a picture over so many connections for so long; ``before`` places the generator."""
    report = folder / "oha.json"
    report.unlink(missing_ok=True)
    command = [*before, str(oha), "--no-tui", "--output-format", "json", "--output", str(report)]
    command += ["-z", f"{seconds:g}s", "-c", str(connections), "-m", "POST", "-D", str(picture)]
    begun = _children_seconds()
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not report.exists():
        raise ModelError(f"oha failed: {done.stderr.strip()[-300:]}")
    found = figures(json.loads(report.read_text()))
    taken = _children_seconds() - begun
    return found | {"generator_ms": round(taken * 1e3 / found["answers"], 3)}


def _children_seconds() -> float:
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def figures(report: dict[str, Any]) -> dict[str, float]:
    """What of oha's report is kept; raises ModelError when an answer was not 200.

    Requests that were under way when the time was up are no errors.
    """
    codes = report["statusCodeDistribution"]
    errors = {
        text: count for text, count in report["errorDistribution"].items() if "deadline" not in text
    }
    if set(codes) != {"200"} or errors:
        raise ModelError(f"answers other than 200: {codes} {errors}")
    waits = report["latencyPercentiles"]
    return {
        "requests_per_second": round(codes["200"] / report["summary"]["total"], 2),
        "mean_ms": round(report["summary"]["average"] * 1e3, 3),
        "p50_ms": round(waits["p50"] * 1e3, 3),
        "p99_ms": round(waits["p99"] * 1e3, 3),
        "answers": codes["200"],
    }


def throughput(
    place: Place,
    model: Model,
    small: Model | None,
    oha: Path,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Requests a second with 1 to N instances on N cores and with everything on one core, and
    what the processes take."""
    cores = len(os.sched_getaffinity(0))
    alone = [_one_core(place, model, oha, seconds, say)]
    steps: list[dict[str, Any]] = []
    for instances in range(1, cores + 1):
        say(f"{model.title}: HTTP with {instances} of {cores} instances")
        with served(place, model.module, instances, place.work / "serve.log") as (url, pid):
            load(oha, url, model.picture, instances, 1, model.folder)
            # As many connections as instances: nobody waits in the queue. Then twice as many, so
            # that no instance waits for the next request.
            even = load(oha, url, model.picture, instances, seconds, model.folder)
            clock, begun = capacity.Clock(), capacity.cpu_seconds(pid)
            full = load(oha, url, model.picture, 2 * instances, seconds, model.folder)
            taken, shares = capacity.cpu_seconds(pid) - begun, clock.shares()
            rss, pss = process.memory_kb(process.session(pid))
        steps.append(
            {
                "instances": instances,
                "requests_per_second": full["requests_per_second"],
                "p50_ms": even["p50_ms"],
                "p99_ms": even["p99_ms"],
                "rss_kb": rss,
                "pss_kb": pss,
                "server_ms": round(taken * 1e3 / full["answers"], 3),
                "generator_ms": full["generator_ms"],
                "shares": shares,
            }
        )
    # Once more behind the others: the machine changes its speed meanwhile.
    alone.append(_one_core(place, model, oha, seconds, say))
    one = statistics.fmean(alone)
    return {
        "model": model.name,
        "picture": model.picture.name,
        "seconds": seconds,
        "steps": steps,
        "one_core": round(one, 2),
        "scaling": scaling(one, steps) if cores > 1 else None,
        "machine": capacity.measure(place, model, small, seconds, say),
        "further_instance_kb": further(steps),
        "further_process_kb": _further_process(place, model, oha, say),
        "instance_ms": _instances(place, model, cores, say),
    }


def scaling(one: float, steps: Sequence[Mapping[str, Any]]) -> float:
    """Requests a second on N cores over N times those of one core."""
    most = steps[-1]
    rate: float = most["requests_per_second"] / most["instances"]
    return round(rate / one, 4)


def _one_core(
    place: Place, model: Model, oha: Path, seconds: float, say: Callable[[str], None]
) -> float:
    """Requests a second when one core does all that the server does, and no other work."""
    say(f"{model.title}: HTTP on one core")
    cores = sorted(os.sched_getaffinity(0))
    others = ",".join(map(str, cores[:-1] or cores))
    away = ["taskset", "-c", others]
    log = place.work / "serve.log"
    with served(place, model.module, 1, log, core=cores[-1]) as (url, _):
        load(oha, url, model.picture, 2, 1, model.folder, away)
        return load(oha, url, model.picture, 2, seconds, model.folder, away)["requests_per_second"]


def further(steps: Sequence[Mapping[str, Any]]) -> int | None:
    """Proportional kilobytes of each instance beyond the first."""
    if len(steps) < 2:
        return None
    first, last = steps[0], steps[-1]
    more: int = last["instances"] - first["instances"]
    kilobytes: float = last["pss_kb"] - first["pss_kb"]
    return round(kilobytes / more)


def _instances(
    place: Place, model: Model, count: int, say: Callable[[str], None], times: int = 3
) -> dict[str, float] | None:
    """How long it takes to make an instance and ask it for its health, as the host logs it."""
    say(f"{model.title}: {count} instances begin")
    log = place.work / "serve.log"
    found: list[float] = []
    for _ in range(times):
        flags = ["--log", "info,host=debug", "--log-format", "json"]
        with served(place, model.module, count, log, flags):
            pass
        found += begun_ms(log.read_text(errors="replace"))
    return stats.spread(found).as_json() if found else None


def begun_ms(log: str) -> list[float]:
    """The times of instances in a log of lines of JSON."""
    found = []
    for line in log.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(line)
            fields = event.get("fields", event)
            if "instance_us" in fields:
                found.append(fields["instance_us"] / 1e3)
    return found


def _further_process(
    place: Place, model: Model, oha: Path, say: Callable[[str], None], count: int = 4
) -> int:
    """Proportional kilobytes by which the last of several processes of one model adds."""
    say(f"{model.title}: memory of {count} processes that serve it")
    totals = []
    with contextlib.ExitStack() as stack:
        pids = []
        for index in range(count):
            log = place.work / f"serve-{index}.log"
            url, pid = stack.enter_context(served(place, model.module, 1, log))
            pids.append(pid)
            load(oha, url, model.picture, 1, 1, model.folder)
            totals.append(process.memory_kb([p for pid in pids for p in process.session(pid)])[1])
    return totals[-1] - totals[-2]


def waits(
    place: Place,
    model: Model,
    oha: Path,
    picture: Path,
    seconds: float,
    *,
    isolated: bool = False,
) -> dict[str, float]:
    """One instance, one connection: how long one request takes, and the graph in it.

    The graph's share is what the server's metrics say of these very requests. Its time in another
    process, or a minute later, differs by more than everything around it takes.
    """
    log = place.work / "serve.log"
    flags = ["--isolation", "request"] if isolated else []
    admin = f"127.0.0.1:{free_port()}"
    with served(place, model.module, 1, log, flags, admin=admin) as (url, _):
        load(oha, url, picture, 1, 1, model.folder)
        before = _graph_so_far(admin)
        found = load(oha, url, picture, 1, seconds, model.folder)
        after = _graph_so_far(admin)
    graph = (after[0] - before[0]) / (after[1] - before[1])
    return found | {"graph_ms": round(graph * 1e3, 3)}


def _graph_so_far(admin: str) -> tuple[float, int]:
    """Seconds that a server has spent in its graph, and how often."""
    try:
        with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
            return graph_in(answer.read().decode())
    except OSError as error:
        raise ModelError(f"the server's metrics: {error}") from error


def graph_in(metrics: str) -> tuple[float, int]:
    """The same from the text of its metrics (docs/metrics.md); raises ModelError without them."""
    totals = {"sum": 0.0, "count": 0.0}
    seen = False
    for line in metrics.splitlines():
        found = re.match(r"graphlet_inference_seconds_(sum|count)\{(.*)\} (\S+)$", line)
        if found and 'phase="infer"' in found[2]:
            totals[found[1]] += float(found[3])
            seen = True
    if not seen:
        raise ModelError("the server's metrics have no time of the graph")
    return totals["sum"], int(totals["count"])


def offers_isolation(place: Place) -> bool:
    """Whether this build can answer each request from a fresh instance."""
    told = machine.output([str(place.graphlet), "run", "--help"]) or ""
    return "--isolation" in told
