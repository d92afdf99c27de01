"""The command line: ``python -m graphlet_compiler facts | check | compile | reference | cases``.

Events and answers go to standard output as JSON, one object a line; everything else goes to
standard error. Exit codes: 0 done, 1 failed (the last line is an ``error`` event), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from graphlet_compiler import __version__
from graphlet_compiler.errors import CompileError, MissingToolError, TooLargeError, from_os_error
from graphlet_compiler.events import Events


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    events = Events(_own_stdout())
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(options, events)
    except CompileError as error:
        events.error(error)
        return 1
    except ImportError as error:
        events.error(
            MissingToolError(
                f"a Python package is missing: {error}",
                hint="install compiler/requirements.txt, as scripts/setup does",
            )
        )
        return 1
    except MemoryError:
        events.error(TooLargeError("not enough memory to compile the model"))
        return 1
    except OSError as error:
        events.error(from_os_error(error, "a file operation failed"))
        return 1
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        reason = " ".join(str(error).split()) or type(error).__name__
        events.error(
            CompileError(
                f"the compiler failed: {reason}",
                hint="this is a fault of the compiler; the log has its traceback",
            )
        )
        return 1
    return 0


def _run(options: argparse.Namespace, events: Events) -> None:
    # Imported here: `--help` and wrong usage answer at once.
    from graphlet_compiler import onnx_facts, spec

    if options.command == "facts":
        events.emit(onnx_facts.facts(options.onnx))
        return
    if options.command == "cases":
        from graphlet_compiler import case_worker, node_cases

        if options.list:
            events.text("\n".join(node_cases.names()))
            return
        case_worker.serve(sys.stdin, options.out, events, importing=options.import_only)
        return
    if options.command == "compile" and options.tensors is not None:
        from graphlet_compiler import pipeline, tensors, tuning

        simd = None if options.simd is None else spec.Simd(options.simd)
        tensor_spec = tensors.load(options.tensors)
        tuner = tuning.load(options.choices, listing=options.list_choices)
        pipeline.compile_to(tensor_spec, options.onnx, options.out, events, simd, tuner)
        return
    model = spec.load(options.spec)
    if options.command == "check":
        from graphlet_compiler import check

        events.emit(check.check(model, options.onnx))
    elif options.command == "reference":
        from graphlet_compiler import reference

        events.emit(reference.reference(model, options.onnx, options.tensors, options.out))
    else:
        from graphlet_compiler import pipeline, tuning

        simd = None if options.simd is None else spec.Simd(options.simd)
        tuner = tuning.load(options.choices, listing=options.list_choices)
        pipeline.compile_to(model, options.onnx, options.out, events, simd, tuner)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphlet_compiler", description="Compiles ONNX image models to WebAssembly with TVM."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    facts = commands.add_parser("facts", help="what an ONNX file says about itself")
    check = commands.add_parser("check", help="what a model costs and where it is slow")
    build = commands.add_parser("compile", help="write graph.json, graph.params and the kernels")
    reference = commands.add_parser("reference", help="what onnxruntime computes")
    for command in (facts, check, build, reference):
        command.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the model")
    for command in (check, reference):
        command.add_argument(
            "--spec", type=Path, required=True, metavar="FILE", help="model.toml as JSON"
        )
    kind = build.add_mutually_exclusive_group(required=True)
    kind.add_argument("--spec", type=Path, metavar="FILE", help="model.toml as JSON")
    kind.add_argument(
        "--tensors", type=Path, metavar="FILE", help="what a model without pictures needs, as JSON"
    )
    build.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the artifacts go"
    )
    build.add_argument(
        "--simd",
        choices=("none", "simd128", "relaxed"),
        help="vector instructions (default: what the specification says)",
    )
    build.add_argument(
        "--choices",
        type=Path,
        metavar="FILE",
        help="how layers are to be computed, as JSON: from the layer's name to the variant's",
    )
    build.add_argument(
        "--list-choices",
        action="store_true",
        help="list in the report every layer that can be computed in several ways",
    )
    reference.add_argument(
        "--tensors", type=Path, required=True, metavar="DIR", help="inputs as .npy files"
    )
    reference.add_argument(
        "--out", type=Path, metavar="DIR", help="write outputs as .npy files (default: print them)"
    )
    cases = commands.add_parser("cases", help="compile ONNX's node cases, one a line of stdin")
    where = cases.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="where a case's artifacts go")
    where.add_argument("--list", action="store_true", help="print the cases' names instead")
    cases.add_argument("--import-only", action="store_true", help="build nothing")
    return parser


def _own_stdout() -> TextIO:
    """Standard output for events alone: TVM and LLVM print where they like."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "w", encoding="utf-8")


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    # As an exception, so that what is half written goes away.
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
