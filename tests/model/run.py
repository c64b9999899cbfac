#!/usr/bin/env python3
"""Checks one instance of a Promela model and compares the outcome with what is expected.

    run.py inbox.pml --expect pass WINDOW=1 ARRIVALS=3
    run.py inbox.pml --expect all_served BAD_RUNG_STORED ARRIVALS=2

"pass" holds if the whole state space was visited without a violation and AtRest, the process that
looks at what is left when nothing can move any more, has run to its end in it. The name of a
property holds if exactly the assertion of that name is violated. Anything else (out of memory, time
or depth, another assertion, a model that does not compile) is a failure, so that a broken variant
cannot be taken for detected when the checker merely gave up.

Exits with 0 if the expectation holds, 1 if it does not, 77 (skipped) without spin or a C compiler.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

SKIPPED = 77
MEMORY_MB_MAX = 2000
DEPTH_MAX = 1_000_000
TRAIL_LINES_MAX = 150

# Why a search that was not stopped by a violation proves nothing.
INCONCLUSIVE = (
    "max search depth too small",
    "out of memory",
    "memory limit",
    "Search not completed",
    "VECTORSZ",
    "aborting",
)


def unknown_flags(model, flags):
    with open(model, encoding="utf-8") as text:
        words = set(re.findall(r"\w+", text.read()))
    return [flag for flag in flags if flag.split("=")[0] not in words]


def build(model, flags, level, folder):
    """Makes the checker `pan` in `folder`."""
    defines = ["-D" + flag for flag in flags]
    subprocess.run(["spin", "-a", *defines, model], cwd=folder, check=True)
    options = ["-DSAFETY", "-DNOREDUCE", "-DCOLLAPSE", "-DVECTORSZ=1024",
               f"-DMEMLIM={MEMORY_MB_MAX}"]
    # Generated code, whose warnings say nothing about the model.
    compiler = ["gcc" if shutil.which("gcc") else "cc", level, "-w"]
    subprocess.run([*compiler, *options, "-o", "pan", "pan.c"], cwd=folder, check=True)


def check(folder, seconds_max):
    """Runs the checker; returns its report, None when it took more CPU time than it may."""
    def limit():
        bytes_max = (MEMORY_MB_MAX + 500) << 20
        resource.setrlimit(resource.RLIMIT_AS, (bytes_max, bytes_max))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds_max, seconds_max + 1))

    # -E: processes that wait for ever are the normal end here; AtRest judges what they leave.
    command = ["./pan", f"-m{DEPTH_MAX}", "-E"]
    run = subprocess.run(command, cwd=folder, text=True, check=False, preexec_fn=limit,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return None if run.returncode == -signal.SIGXCPU else run.stdout


def outcome(report):
    """What a report says: "pass", the name of the violated property, or a sentence."""
    if report is None:
        return "out of time"
    errors = re.search(r"errors: (\d+)", report)
    if errors is None:
        return "the checker ended without a result"
    violated = re.search(r"assertion violated \(*(\w+)", report)
    if violated:
        return violated.group(1)
    for text in INCONCLUSIVE:
        if text in report:
            return "inconclusive: " + text
    if errors.group(1) != "0":
        return "an error that is no assertion"
    if not re.search(r"unreached in proctype AtRest\s+\(0 of ", report):
        return "vacuous: AtRest was never reached to its end"
    return "pass"


def states(report):
    found = re.search(r"(\d+) states, stored", report or "")
    return int(found.group(1)) if found else 0


def print_trail(model, flags, folder):
    """Shows how the violation comes about, the end of it."""
    trail = os.path.join(folder, os.path.basename(model) + ".trail")
    if not os.path.exists(trail):
        return
    defines = ["-D" + flag for flag in flags]
    replay = subprocess.run(["spin", "-p", "-k", trail, *defines, model], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    lines = [line for line in replay.stdout.splitlines() if "[.(goto)]" not in line]
    print("\n".join(lines[-TRAIL_LINES_MAX:]))


def cpu_seconds():
    """Of all that was run so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="NAME or NAME=VALUE")
    parser.add_argument("--expect", required=True, metavar="pass|PROPERTY")
    parser.add_argument("--seconds-max", type=int, default=120,
                        help="of CPU time, because others may have the machine meanwhile")
    parser.add_argument("--optimise", action="store_true",
                        help="the checker: for a large instance, of which it takes less time")
    parser.add_argument("--trail", action="store_true", help="show an expected violation, too")
    arguments = parser.parse_intermixed_args()

    if not shutil.which("spin"):
        print("skipped: the model checker spin is not installed (Debian package spin)")
        return SKIPPED
    if not shutil.which("gcc") and not shutil.which("cc"):
        print("skipped: no C compiler for the checker that spin generates")
        return SKIPPED

    model = os.path.abspath(arguments.model)
    # A misspelt flag would quietly check something else.
    unknown = unknown_flags(model, arguments.flags)
    if unknown:
        print(f"{arguments.model} does not know {', '.join(unknown)}")
        return 1
    with tempfile.TemporaryDirectory(prefix="ringmaster-model-") as folder:
        build(model, arguments.flags, "-O1" if arguments.optimise else "-O0", folder)
        before = cpu_seconds()
        report = check(folder, arguments.seconds_max)
        seconds = cpu_seconds() - before
        seen = outcome(report)
        print(f"flags={' '.join(arguments.flags)} expected={arguments.expect} outcome={seen} "
              f"states={states(report)} seconds={seconds:.1f}")
        if seen != arguments.expect or arguments.trail:
            print(report or "")
            print_trail(model, arguments.flags, folder)
    return 0 if seen == arguments.expect else 1


if __name__ == "__main__":
    sys.exit(main())
