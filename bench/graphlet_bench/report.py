"""Results as Markdown: what `make bench` prints and `docs/benchmarks/results.md` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Results = dict[str, Any]


def markdown(results: Results) -> str:
    """The whole report."""
    lines = ["# Results", "", *_surroundings(results)]
    for model in results["models"]:
        lines += ["", f"## {model['title']}", *_model(model, results["settings"])]
    if results.get("http"):
        lines += ["", "## Over HTTP", *_http(results)]
    if results.get("operators"):
        lines += ["", "## The operator library", *_operators(results["operators"])]
    for part in ("requests", "kernels"):
        if f"{part}_reason" in results:
            lines += ["", f"Not measured: {part}: {results[f'{part}_reason']}."]
    if results.get("kernels"):
        lines += ["", "## Kernels", *_kernels(results["kernels"])]
    lines += ["", "## Targets", *_targets(results["targets"])]
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text, the others are figures."""
    marks = ["---"] + ["---:"] * (len(head) - 1)
    cells = [head, marks, *rows]
    return ["| " + " | ".join(_cell(c) for c in row) + " |" for row in cells]


def _mb(kilobytes: float) -> float:
    """Megabytes, of kilobytes as /proc counts them: 1,024 bytes."""
    return kilobytes * 1.024e-3


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _surroundings(results: Results) -> Iterator[str]:
    machine, settings = results["machine"], results["settings"]
    commit = machine["commit"] or "unknown"
    if machine["changed_files"]:
        commit += f" and {machine['changed_files']} changed files"
    processes = settings["rounds"]
    load = f"load {machine['load_before']} before, {results['load_after']} after"
    yield (
        f"{results['date']}, commit {commit}. {machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['flags'])}), {machine['memory_gb']} GB; {machine['system']}; {load}. "
        f"Processes are {settings['placement']}; {processes} processes of each, in turns, "
        f"{settings['runs']} pictures in each; {machine['chromium'] or 'no Chromium'}; "
        f"node {machine['node'] or 'absent'}."
    )
    yield ""
    yield (
        "A time is the median over processes of each process's median, with the least and "
        "greatest process behind it. *Times ours* is taken in each round and the median quoted: "
        "above 1, graphlet is faster."
    )


def _model(model: Results, settings: Results) -> Iterator[str]:
    if model.get("reason"):
        yield ""
        yield f"Not measured: {model['reason']}."
        return
    head = ["runtime", "ms", "least-greatest", "times ours", "start to label, ms"]
    head += ["PSS, MB", "RSS, MB", "model + runtime, MB", "output"]
    rows = [_row(row) for row in model["rows"]]
    ours = model["rows"][0]
    yield ""
    if model.get("rounds", settings["rounds"]) != settings["rounds"]:
        yield f"Processes of each: {model['rounds']}; pictures in each: {model['runs']}."
        yield ""
    if model.get("graph"):
        size, memory = ours.get("bytes", {}).get("model") or 0, model["sizes"]["memory"]
        yield (
            f"As a WASM graph (`graphlet graph run`) on seeded noise: its module of "
            f"{size / 1e6:.0f} MB is larger than what is signed and served. It takes "
            f"{memory / 1e6:.0f} MB of memory."
        )
        yield ""
    if "phases_ms" in ours:
        phases = ours["phases_ms"]
        named = [("decode", "decode"), ("preprocess", "resize and normalise"), ("infer", "graph")]
        told = ", ".join(f"{text} {phases[key]:.2f}" for key, text in named if key in phases)
        alone = ours.get("cold_one_core_ms")
        start = f" Start of ours with one core: {alone['median']:.0f} ms." if alone else ""
        called = f"One call of ours on {model['picture']}, ms: {told}, all {phases['total']:.2f}."
        yield called + start
        yield ""
    yield from table(head, rows)
    for row in model["rows"]:
        for note in row.get("notes", []):
            yield ""
            yield f"{row['label']}: {note}."


def _row(row: Results) -> list[str]:
    # "tract in wasmtime" has the version of tract.
    who, inside, where = row["label"].partition(" in ")
    name = f"{who} {row['version']}{inside}{where}"
    if row["kind"] == "ours":
        name = f"**{row['label']} {row['version']}**"
    elif row["kind"] == "native":
        name += ", native"
    if row["reason"]:
        return [name, f"not measured: {row['reason']}", *[""] * 7]
    median, ratio, output = row["median_ms"], row["times_ours"], row.get("output")
    memory, size = row.get("memory_kb"), row.get("bytes", {})
    sizes = [size.get(part) for part in ("model", "runtime")]
    verdict = "not compared"
    if output is not None:
        verdict = "same" if output["right"] else "**WRONG**"
        verdict += f" ({output['max_difference']:.1g})"
    return [
        name,
        f"{median['median']:.2f}",
        f"{median['low']:.2f}-{median['high']:.2f}",
        f"{ratio['median']:.2f}" if ratio else "",
        f"{row['cold_ms']['median']:.0f}" if "cold_ms" in row else "",
        f"{_mb(memory['pss']):.0f}" if memory else "",
        f"{_mb(memory['rss']):.0f}" if memory else "",
        " + ".join(f"{part / 1e6:.1f}" for part in sizes if part),
        verdict,
    ]


def _http(results: Results) -> Iterator[str]:
    http = results["http"]
    yield ""
    if http.get("reason"):
        yield f"Not measured: {http['reason']}."
        return
    yield (
        f"{http['model']} on {http['picture']}, `graphlet run --instances N`, oha on the same "
        f"machine over loopback, {http['seconds']:g} s each. Requests a second with 2N "
        "connections, waiting times with N. Processor time of server and of oha is for one "
        "request; idle and stolen (by the hypervisor, for others) are parts of all cores."
    )
    yield ""
    yield from table(_HTTP_HEAD, [_step(http, step) for step in http["steps"]])
    yield from _scaling(http)
    further = http.get("further_process_kb")
    if further is not None:
        yield ""
        yield f"A further process of the same model takes {_mb(further):.1f} MB (PSS)."
    began = http.get("instance_ms")
    if began is not None:
        yield ""
        yield (
            f"An instance is made, and has answered its first health request, in "
            f"{began['median']:.2f} ms ({began['low']:.2f}-{began['high']:.2f})."
        )


_HTTP_HEAD = ["instances", "requests/s", "times one", "p50, ms", "p99, ms", "PSS, MB"]
_HTTP_HEAD += ["server, ms", "oha, ms", "idle", "stolen"]


def _step(http: Results, step: Results) -> list[str]:
    shares = step.get("shares", {})
    first = http["steps"][0]["requests_per_second"]
    return [
        str(step["instances"]),
        f"{step['requests_per_second']:.1f}",
        f"{step['requests_per_second'] / first:.2f}",
        f"{step['p50_ms']:.1f}",
        f"{step['p99_ms']:.1f}",
        f"{_mb(step['pss_kb']):.0f}",
        *(f"{step[key]:.2f}" if key in step else "" for key in ("server_ms", "generator_ms")),
        *(f"{shares[key]:.2f}" if key in shares else "" for key in ("idle", "steal")),
    ]


def _scaling(http: Results) -> Iterator[str]:
    """N cores beside one, and beside processes that share nothing."""
    if "one_core" not in http or http["scaling"] is None:
        return
    most, machine = http["steps"][-1], http["machine"]
    count, pictures, gmacs = machine["cores"], machine["pictures"], machine.get("gmacs")
    yield ""
    yield (
        f"With one core for all that the server does, {http['one_core']:.1f} requests a second; "
        f"{count} cores, which oha shares, give {most['requests_per_second']:.1f}: "
        f"{http['scaling']:.2f} of {count} times one."
    )
    text = (
        f"What the machine allows: {count} processes that share nothing, each on its own core "
        f"and without HTTP, classify {pictures['all']:.1f} pictures a second, "
        f"{pictures['scaling']:.2f} of {count} times one ({pictures['one']:.1f})"
    )
    if gmacs:
        text += (
            f"; multiply-adds on registers alone reach {gmacs['scaling']:.2f} of {count} times one "
            f"({gmacs['one']:.1f} GMAC/s)"
        )
    yield ""
    yield f"{text}. The server reaches {http['scaling'] / pictures['scaling']:.2f} of the first."


def _operators(found: Results) -> Iterator[str]:
    yield ""
    if found.get("reason"):
        yield f"Not measured: {found['reason']}."
        return
    yield (
        f"Operands of {found['operand_bytes'] >> 20} MiB, which caches do not hold: gigabytes of "
        f"operands and result a second, one thread. A copy (NumPy) reaches "
        f"{found['copy_gb_per_s']:.1f}. operators.wasm and tfjs-backend-wasm run in node; NumPy "
        "is native. Outputs are compared with NumPy's."
    )
    yield ""
    rows = []
    for row in found["rows"]:
        rates, same = row["gb_per_s"], row["same"]
        told = {
            name: (f"{rates[name]:.1f}" + ("" if same[name] else " **WRONG**"))
            if name in rates
            else "no such type"
            for name in ("graphlet", "numpy", "tfjs")
        }
        times = rates["graphlet"] / rates["numpy"] if "graphlet" in rates else None
        share = rates["graphlet"] / found["copy_gb_per_s"] if "graphlet" in rates else None
        last = [f"{value:.2f}" if value else "" for value in (times, share)]
        rows.append([f"{row['operator']} {row['type']}", *told.values(), *last])
    head = ["operator", "operators.wasm", "NumPy", "tfjs", "times NumPy", "of a copy"]
    yield from table(head, rows)


def _kernels(found: Results) -> Iterator[str]:
    yield ""
    yield "Share of the core's native 128-bit FMA loop, by class of layers (`make bench-check`)."
    yield ""
    rows = [[name, f"{ratio:.2f}"] for name, ratio in found.items()]
    yield from table(["class", "of the loop"], rows)


def _targets(targets: Sequence[Results]) -> Iterator[str]:
    yield ""
    rows = []
    for target in targets:
        sign = "at least" if target["sense"] == "least" else "at most"
        found = "" if target["value"] is None else f"{target['value']:.2f} {target['unit']}"
        word = {None: "not measured", True: "reached", False: "**not reached**"}
        bound = f"{sign} {target['bound']:.2f} {target['unit']}"
        rows.append([target["target"], bound, found, word[target["reached"]]])
    yield from table(["figure", "target", "this run", ""], rows)
