#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tests in stages, the cheapest first, and ends with the line
`N passed, N failed, N skipped`; the exit code is 1 if anything failed.

What a stage prints goes to build/test-logs/; a failed test is one line here,
with its log and the command that repeats it. Under CI=true a skipped test is a
failed one, unless the reason it gives starts with "kernel lacks".
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))

from support import process  # noqa: E402

BUILD = CHECKOUT / "build"
LOGS = BUILD / "test-logs"
GO = BUILD / "go"

KINDS = ["fuse-overlayfs", "native", "overlayfs", "stargz"]
CONFORMANCE_MODES = ["shared", "each"]
# Meson's suites that have stages of their own; any other counts as `unit`.
# containerd 1.6's suite leaves its Rename test out by itself, on every kernel and for every kind.
LEFT_OUT_BY_THE_SUITE = "rename test still fails on some kernels"
SUITES = {"mount", "suite", "crash", "bench", "fuzz"}

# Meson's limits are meant for an idle machine.
LIMIT_FACTOR = 4
SANITIZER_LIMIT_FACTOR = 12
BUILD_MINUTES = 120
FUZZ_SECONDS = 20
# For what a fuzz target does before and after its time.
FUZZ_EXTRA_SECONDS = 120
FUZZ_INPUT_SECONDS = 10
FUZZ_MEMORY_MIB = 2048
SECONDS_PER_KILL = 20
SECONDS_PER_LAZY_KILL = 4
LAZY_KILLS = 200
# By presenter and by how the registry behaves, under strata-keeper and under systemd.
KILL_MODES = 8
POLL_SECONDS = 0.02
BUILD_LOG_TAIL_LINES = 20
# What test programs end with to say "skipped" (automake's convention, which meson follows).
EXIT_SKIPPED = 77
PYTEST_NOTHING_COLLECTED = 5
ACCEPTED_SKIP = "kernel lacks"

_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def say(text=""):
    print(text, flush=True)


def shown(path):
    """A path as one would type it in the checkout."""
    path = os.fspath(path)
    relative = os.path.relpath(path, CHECKOUT)
    return path if relative.startswith("..") else relative


def one_line(text):
    return " ".join(text.split())


# --- processes ----------------------------------------------------------------------------------


class Job:
    """A command that is run to its end, with its output in a log."""

    def __init__(self, name, argv, log, limit=None, env=None, cwd=CHECKOUT, alone=False,
                 stop_signal=signal.SIGTERM, to_terminal=False):
        self.name = name
        self.argv = [os.fspath(argument) for argument in argv]
        self.log = log
        self.limit = limit
        self.env = env or {}
        self.cwd = cwd
        self.alone = alone
        self.stop_signal = stop_signal
        self.to_terminal = to_terminal
        self.code = None
        self.problem = ""
        self._process = None
        self._end_at = None
        self._kill_at = None

    @property
    def pid(self):
        return self._process.pid

    def start(self, deadline):
        self._end_at = min(deadline, time.monotonic() + (self.limit or float("inf")))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        output = None if self.to_terminal else open(self.log, "wb")
        try:
            self._process = process.spawn(
                self.argv, stdin=subprocess.DEVNULL, stdout=output,
                stderr=None if self.to_terminal else subprocess.STDOUT,
                env=dict(os.environ, **self.env), cwd=self.cwd)
        except OSError as error:
            self.problem = f"cannot be run: {error}"
        finally:
            if output:
                output.close()

    def ended(self):
        """Whether the command is over; ends it by force once its time is up."""
        if self._process is None:
            return True
        self.code = self._process.poll()
        now = time.monotonic()
        if self.code is None:
            if self._kill_at is None and now > self._end_at:
                self.problem = "did not end in time"
                process.signal_group(self._process, self.stop_signal)
                self._kill_at = now + process.GRACE_SECONDS
            elif self._kill_at is not None and now > self._kill_at:
                process.signal_group(self._process, signal.SIGKILL)
            return False
        process.signal_group(self._process, signal.SIGKILL)
        if not self.problem and self.code < 0:
            self.problem = f"ended by {signal.Signals(-self.code).name}"
        return True

    def stop(self):
        if self._process is not None and self._process.poll() is None:
            process.signal_group(self._process, self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(process.GRACE_SECONDS)
            process.call_off(self._process)

    @property
    def ok(self):
        return self.code == 0 and not self.problem

    def why(self):
        return self.problem or f"exit code {self.code}"

    def output(self):
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")
        return ""

    def command(self, *more):
        """The command line that repeats it, with further arguments."""
        argv = list(self.argv)
        if CHECKOUT in pathlib.Path(argv[0]).parents:
            argv[0] = os.path.relpath(argv[0], self.cwd)
            if "/" not in argv[0]:
                argv[0] = f"./{argv[0]}"
        words = [f"{name}={shlex.quote(value)}" for name, value in sorted(self.env.items())
                 if name != "GTEST_OUTPUT" and os.environ.get(name) != value]
        words += [shlex.quote(word) for word in [*argv, *more]]
        at = "" if self.cwd == CHECKOUT else f"cd {shlex.quote(shown(self.cwd))} && "
        return at + " ".join(words)


def adopt_orphans():
    """Makes this process the parent of all its descendants that lose theirs."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(running):
    """A test may wait for a process to be gone, which it is once its parent has heard of it."""
    own = {job.pid for job in running}
    with contextlib.suppress(ChildProcessError):
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # One of our own is for its Job to collect, which it does in the next round.
            if found is None or found.si_pid in own:
                return
            os.waitpid(found.si_pid, 0)


def children():
    """(pid, name) of the processes whose parent is this one."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): the name is in parentheses and may contain some.
            head, _, rest = stat.read_text(errors="replace").rpartition(")")
            if int(rest.split()[1]) == os.getpid():
                found.append((int(stat.parent.name), head.partition("(")[2]))
    return found


def end_orphans():
    """Kills what the tests of a stage have left running; returns the names."""
    names = []
    while left := children():
        for pid, name in left:
            names.append(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return names


def run_jobs(jobs, deadline, on_end, width=1):
    """Runs jobs, `width` at a time, and hands over each one when it has ended."""
    waiting = list(jobs)
    running = []
    try:
        while waiting or running:
            while waiting and len(running) < width and not (
                    running and (waiting[0].alone or running[0].alone)):
                job = waiting.pop(0)
                if time.monotonic() > deadline:
                    job.problem = "was not started: the stage took too long"
                    on_end(job)
                    continue
                # In the list first: a signal may come at any point.
                job.start(deadline)
                running.append(job)
            for job in [job for job in running if job.ended()]:
                running.remove(job)
                on_end(job)
            reap_orphans([job for job in running if job.code is None])
            time.sleep(POLL_SECONDS if running else 0)
    finally:
        for job in running:
            job.stop()


# --- results ------------------------------------------------------------------------------------


class Tally:
    """Counts, and prints a line for whatever did not pass."""

    def __init__(self, strict):
        self._strict = strict
        self.passed = 0
        self.failed = 0
        self.skipped = 0

    @property
    def total(self):
        return self.passed + self.failed + self.skipped

    def add_pass(self):
        self.passed += 1

    def add_failure(self, name, log, again, why=""):
        self.failed += 1
        say(f"   FAILED {name}{f' ({one_line(why)})' if why else ''}: {shown(log)}; again: {again}")

    def add_skip(self, name, reason, log, again):
        reason = one_line(reason) or "no reason given"
        if reason.startswith(LEFT_OUT_BY_THE_SUITE):
            return
        if self._strict and not reason.startswith(ACCEPTED_SKIP):
            self.add_failure(name, log, again, f"skipped: {reason}")
            return
        self.skipped += 1
        say(f"   skipped {name}: {reason}")

    def line(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def count_exit_code(tally, job):
    """The job as one test."""
    if job.ok:
        tally.add_pass()
    elif job.code == EXIT_SKIPPED and not job.problem:
        lines = job.output().strip().splitlines()
        reason = re.sub(r"^skipp(ed|ing): *", "", lines[-1], flags=re.IGNORECASE) if lines else ""
        tally.add_skip(job.name, reason, job.log, job.command())
    else:
        tally.add_failure(job.name, job.log, job.command(), job.why())


class Outcome:
    """What became of one test: result is "passed", "failed", "skipped" or None (it did not end)."""

    def __init__(self, name, result=None, text=""):
        self.name = name
        self.result = result
        self.text = text


def gtest_outcomes(xml_file, log):
    """The tests of a gtest program, from its report or, if it left none, from what it printed."""
    try:
        report = xml.etree.ElementTree.parse(xml_file).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return gtest_outcomes_from_log(log)
    outcomes = []
    for suite in report.iter("testsuite"):
        for case in suite.iter("testcase"):
            if case.get("status") != "run":
                continue
            name = f"{suite.get('name')}.{case.get('name')}"
            skipped = case.find("skipped")
            if case.find("failure") is not None:
                outcomes.append(Outcome(name, "failed"))
            elif skipped is not None or case.get("result") == "skipped":
                # The place comes first, on a line of its own.
                text = skipped.get("message", "") if skipped is not None else ""
                outcomes.append(Outcome(name, "skipped", text.partition("\n")[2] or text))
            else:
                outcomes.append(Outcome(name, "passed"))
    return outcomes


_GTEST_RUN = re.compile(r"\[ RUN      \] (\S+)")
_GTEST_END = re.compile(r"\[ *(OK|FAILED|SKIPPED) *\] ([^\s,]+).*\(\d+ ms\)$")


def gtest_outcomes_from_log(log):
    outcomes = {}
    for line in log.splitlines():
        if begun := _GTEST_RUN.search(line):
            outcomes[begun[1]] = Outcome(begun[1])
        elif (ended := _GTEST_END.search(line)) and ended[2] in outcomes:
            outcomes[ended[2]].result = {
                "OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}[ended[1]]
    return list(outcomes.values())


_PYTEST_LINE = re.compile(
    r"^(\S+\.py::.*?)(?: (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*| *)$")


def pytest_outcomes(xml_file, log):
    """The tests of a pytest run by node id, from its report or else from what it printed."""
    outcomes = {}
    try:
        report = xml.etree.ElementTree.parse(xml_file).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        for line in log.splitlines():
            if found := _PYTEST_LINE.match(line):
                result = {"PASSED": "passed", "SKIPPED": "skipped", "XFAIL": "skipped",
                          None: None}.get(found[2], "failed")
                outcomes[found[1]] = Outcome(found[1], result)
        return list(outcomes.values())
    for case in report.iter("testcase"):
        name = pytest_node(case)
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = Outcome(name, "failed")
        elif skipped is not None:
            outcome = Outcome(name, "skipped", skipped.get("message", ""))
        else:
            outcome = Outcome(name, "passed")
        # A test that fails in its teardown too is reported twice.
        if name not in outcomes or outcome.result == "failed":
            outcomes[name] = outcome
    return list(outcomes.values())


def pytest_node(case):
    """The node id of a test case: what pytest takes to run just this one."""
    file = case.get("file", "")
    module = file.removesuffix(".py").replace("/", ".")
    if case.get("name") == module:
        # It could not be imported.
        return file
    classes = case.get("classname", "").removeprefix(module).strip(".")
    return "::".join([file, *classes.split(".")] if classes else [file]) + f"::{case.get('name')}"


_GO_RESULTS = {"pass": "passed", "fail": "failed", "skip": "skipped"}


def go_outcomes(log):
    """The innermost tests of a `-test.v` run."""
    events = subprocess.run(["go", "tool", "test2json"], input=log, capture_output=True, text=True,
                            check=True).stdout
    tests = {}
    for event in map(json.loads, events.splitlines()):
        name = event.get("Test")
        if not name:
            continue
        outcome = tests.setdefault(name, Outcome(name))
        if event["Action"] in _GO_RESULTS:
            outcome.result = _GO_RESULTS[event["Action"]]
        elif event["Action"] == "output":
            # What t.Skip was given: the last line that names a place in the sources.
            if place := re.match(r"\s+\S+\.go:\d+: (.*)", event["Output"]):
                outcome.text = place[1]

    def below(name):
        return [tests[other] for other in tests if other.startswith(f"{name}/")]

    return [outcome for name, outcome in tests.items()
            if not below(name)
            # Its own cleanup can fail, when all of its subtests are done.
            or (outcome.result == "failed"
                and not any(inner.result in ("failed", None) for inner in below(name)))]


def count_outcomes(tally, job, outcomes, again, prefix="", known_code=(0,)):
    """Counts single tests, and the job as a failure of its own if they do not account for it."""
    blamed = False
    for outcome in outcomes:
        name = prefix + outcome.name
        if outcome.result == "passed":
            tally.add_pass()
        elif outcome.result == "skipped":
            tally.add_skip(name, outcome.text, job.log, again(outcome.name))
        else:
            blamed = True
            tally.add_failure(name, job.log, again(outcome.name),
                              job.why() if outcome.result is None else "")
    if job.problem and any(outcome.result is None for outcome in outcomes):
        return
    if job.problem or (job.code not in known_code and not blamed):
        tally.add_failure(job.name, job.log, job.command(), job.why())


# --- stages -------------------------------------------------------------------------------------


class Runner:
    """One run: what was asked for, what has been built, what came out."""

    def __init__(self, options):
        self.options = options
        self.pattern = options.pattern
        self.tally = Tally(strict=os.environ.get("CI") == "true")
        self.started = time.monotonic()
        self._built = {}

    def wants(self, name):
        return not self.pattern or self.pattern.strip("*").lower() in name.lower()

    def build(self, kind):
        """Builds a tree once; False if that failed, which is counted once."""
        if kind not in self._built:
            self.header(f"build {kind}")
            log = LOGS / f"build-{kind}.log"
            job = Job(f"build {kind}", [CHECKOUT / "dev", "build", "--type", kind], log,
                      to_terminal=sys.stdout.isatty())
            self.run([job], time.monotonic() + BUILD_MINUTES * 60, lambda job: None)
            self._built[kind] = job.ok
            if not job.ok:
                if not job.to_terminal:
                    say("".join(f"   | {line}\n" for line in
                                job.output().splitlines()[-BUILD_LOG_TAIL_LINES:]).rstrip())
                self.tally.add_failure(job.name, log, job.command(), job.why())
        return self._built[kind]

    def run(self, jobs, deadline, on_end, width=1):
        run_jobs(jobs, deadline, on_end, width)
        left = end_orphans()
        if left:
            say(f"   note: left running, and killed: {', '.join(sorted(set(left)))}")

    def header(self, text):
        seconds = int(time.monotonic() - self.started)
        say(f"== {seconds // 60}:{seconds % 60:02d} {text}")

    def stage(self, stage):
        # Under a pattern a stage whose tests are known by name need not build anything.
        if self.pattern and stage.names is not None and not any(map(self.wants, stage.names())):
            return
        for kind in stage.builds:
            if not self.build(kind):
                self.header(stage.name)
                say("   not run: there is no build")
                return
        self.header(stage.name)
        before = self.tally.total, self.tally.failed, self.tally.skipped
        begun = time.monotonic()
        logs = LOGS / stage.name
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        try:
            stage.run(self, logs, begun + stage.minutes(self.options) * 60)
        except (OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
            # The stages that come next may well be able to run.
            self.tally.add_failure(f"stage {stage.name}", logs,
                                   f"./dev test --stage {stage.name}", repr(error))
        total, failed, skipped = (now - then for now, then in zip(
            (self.tally.total, self.tally.failed, self.tally.skipped), before))
        if total == 0 and not self.pattern:
            self.tally.add_failure(f"stage {stage.name}", logs,
                                   f"./dev test --stage {stage.name}", "it has no tests")
            failed = 1
        say(f"   {'not ok' if failed else 'ok'}: {total} tests, {failed} bad, {skipped} left out, "
            f"{time.monotonic() - begun:.1f} s")


class Stage:
    """A group of tests. names: what a pattern is matched with, if that is known before a build."""

    def __init__(self, name, run, minutes, builds=("gcc",), names=None):
        self.name = name
        self.run = run
        self.builds = builds
        self.names = names
        self._minutes = minutes

    def minutes(self, options):
        return self._minutes(options) if callable(self._minutes) else self._minutes


LINT_CHECKS = ["layering", "format"]


def run_lint(runner, logs, deadline):
    jobs = [Job(f"lint {check}", [CHECKOUT / "dev", "lint", check], logs / f"{check}.log")
            for check in LINT_CHECKS if runner.wants(f"lint {check}")]
    # The checks' own tests.
    jobs += [Job(f"lint {test.stem}", [sys.executable, test], logs / f"{test.stem}.log")
             for test in sorted((CHECKOUT / "tests" / "lint").glob("*_test.py"))
             if runner.wants(f"lint {test.stem}")]
    runner.run(jobs, deadline, lambda job: count_exit_code(runner.tally, job))


def build_directory(kind):
    return BUILD if kind == "gcc" else CHECKOUT / f"build-{kind}"


def introspect(kind, what):
    result = subprocess.run(["meson", "introspect", what, build_directory(kind)],
                            capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def suite_of(test):
    """The stage suite of a registered test. Meson's names are like "strata:unit"."""
    named = {suite.rpartition(":")[2] for suite in test["suite"]} & SUITES
    return min(named) if named else "unit"


def sanitizer_environment(kind):
    """Runtime options of a sanitizer build; what the caller has set wins."""
    settings = {
        "asan": {"ASAN_OPTIONS": "strict_string_checks=1", "LSAN_OPTIONS": "print_suppressions=0",
                 # By itself ubsan prints its findings and goes on.
                 "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"},
        # Debian's shared libraries were not built for it: their own accesses are left alone.
        "tsan": {"TSAN_OPTIONS": "second_deadlock_stack=1:ignore_noninstrumented_modules=1"},
    }
    settings["fuzz"] = settings["asan"]
    chosen = {}
    for name, value in settings.get(kind, {}).items():
        suppressions = CHECKOUT / "tests" / "support" / f"{name[:4].lower()}.supp"
        if suppressions.exists():
            value += f":suppressions={suppressions}"
        chosen[name] = os.environ.get(name, value)
    return chosen


def is_gtest(program):
    """Not every such test is registered with `protocol : 'gtest'`."""
    with contextlib.suppress(OSError):
        return b"gtest_filter" in pathlib.Path(program).read_bytes()
    return False


def run_registered(runner, logs, deadline, kind, suites, more_env=None, limit_factor=LIMIT_FACTOR,
                   width=None):
    """The tests that meson knows of. A gtest program counts as the tests in it."""
    jobs = []
    for test in introspect(kind, "--tests"):
        if suite_of(test) not in suites:
            continue
        # Its name may have blanks and slashes.
        label = re.sub(r"[^\w.+-]", "_", test["name"])
        report = logs / f"{label}.xml"
        env = {**sanitizer_environment(kind), **test["env"], **(more_env or {}),
               "GTEST_OUTPUT": f"xml:{report}", "STRATA_BUILD": str(build_directory(kind))}
        gtest = test["protocol"] == "gtest" or is_gtest(test["cmd"][0])
        if runner.pattern and not runner.wants(test["name"]):
            if not gtest:
                continue
            env["GTEST_FILTER"] = (runner.pattern if "*" in runner.pattern
                                   else f"*{runner.pattern}*")
        limit = test["timeout"] * limit_factor if limit_factor and test["timeout"] > 0 else None
        jobs.append(Job(test["name"], test["cmd"], logs / f"{label}.log", limit=limit, env=env,
                        cwd=test["workdir"] or build_directory(kind),
                        alone=not test["is_parallel"]))
        jobs[-1].report = report
        jobs[-1].gtest = gtest

    def count(job):
        if not job.gtest:
            count_exit_code(runner.tally, job)
            return
        outcomes = gtest_outcomes(job.report, job.output())
        if job.code == 0 and not job.report.exists():
            job.problem = "it ended before its tests did"
        elif job.ok and not outcomes and "GTEST_FILTER" not in job.env:
            job.problem = "it has no tests"
        job.env.pop("GTEST_FILTER", None)
        count_outcomes(runner.tally, job, outcomes,
                       lambda name: job.command(f"--gtest_filter={name}"))

    runner.run(jobs, deadline, count, width or os.cpu_count() or 1)


def registered(kind, *suites, **options):
    def run(runner, logs, deadline):
        run_registered(runner, logs, deadline, kind, suites, **options)
    return run


def run_crash(runner, logs, deadline):
    kills = runner.options.crash_kills
    if kills:
        # The limits in meson.build are meant for the short form; here the stage's has to do.
        run_registered(runner, logs, deadline, "gcc", ["crash"], width=1, limit_factor=None,
                       more_env={"STRATA_CRASH_KILLS": str(kills)})
    else:
        run_registered(runner, logs, deadline, "gcc", ["crash"], width=1)


def crash_minutes(options):
    return 30 + (options.crash_kills or 0) * SECONDS_PER_KILL / 60


def run_conformance(runner, logs, deadline):
    built = []
    runner.run([Job("build of the suite", [CHECKOUT / "tests/conformance/build.sh", GO],
                    logs / "build.log")], deadline, built.append)
    if not built[0].ok:
        count_exit_code(runner.tally, built[0])
        return
    jobs = []
    for kind in KINDS:
        for mode in CONFORMANCE_MODES:
            argv = [GO / "snapshotter-suite", "-test.v"]
            if runner.pattern:
                # Slashes would separate the levels of the tests' names.
                argv.append("-test.run=/(?i)" + re.escape(runner.pattern.strip("*")))
            jobs.append(Job(f"{kind}, {mode}", argv, logs / f"{kind}-{mode}.log",
                            env={"STRATA_SERVER": str(BUILD / "services" / f"strata-{kind}"),
                                 "STRATA_MODE": mode}))

    def count(job):
        if job.code == EXIT_SKIPPED:
            count_exit_code(runner.tally, job)
            return
        outcomes = go_outcomes(job.output())
        if runner.pattern:
            # The pattern has run the outer test too, be there nothing in it.
            outcomes = [outcome for outcome in outcomes
                        if "/" in outcome.name or outcome.result != "passed"]
        elif job.ok and not outcomes:
            job.problem = "it has no tests"
        job.argv = [word for word in job.argv if not word.startswith("-test.run=")]
        count_outcomes(
            runner.tally, job, outcomes, prefix=f"{job.name}: ",
            again=lambda name: job.command(
                "-test.run=" + "/".join(f"^{re.escape(part)}$" for part in name.split("/"))))

    runner.run(jobs, deadline, count)


def pytest(folder, env=None):
    def run(runner, logs, deadline):
        report = logs / "report.xml"
        argv = [sys.executable, "-m", "pytest", "-v", "-rs", "--color=no", "-p", "no:cacheprovider",
                "--continue-on-collection-errors", f"--junitxml={report}",
                "-o", "junit_family=xunit1", folder]
        if runner.pattern:
            # What -k takes is an expression of such words.
            words = re.findall(r"[\w:+.\[\]/-]+", runner.pattern)
            argv += ["-k", " and ".join(words)]
        # Its tests take their servers down when it is interrupted, but not when it is terminated.
        job = Job(f"pytest {folder}", argv, logs / "output.log", stop_signal=signal.SIGINT,
                  env={"STRATA_BUILD": str(BUILD), **(env or {})})

        def count(job):
            outcomes = pytest_outcomes(report, job.output())
            count_outcomes(runner.tally, job, outcomes,
                           lambda name: shlex.join([sys.executable, "-m", "pytest", name]),
                           known_code=(0, PYTEST_NOTHING_COLLECTED))

        runner.run([job], deadline, count)
    return run


def run_kills(runner, logs, deadline):
    """The long form of the tests in which readers of incomplete layers see servers die."""
    pytest("tests/integration/test_lazy_succession.py",
           {"STRATA_KILLS": str(runner.options.lazy_kills)})(runner, logs, deadline)
    # What they have measured.
    with contextlib.suppress(OSError):
        for line in (logs / "output.log").read_text(errors="replace").splitlines():
            if line.startswith("   "):
                say(line)


def kills_minutes(options):
    return 60 + options.lazy_kills * KILL_MODES * SECONDS_PER_LAZY_KILL / 60


BENCHES = {f"bench {name}": name for name in ("metadata", "removal", "usage")}


def run_bench(runner, logs, deadline):
    jobs = [Job(title, [sys.executable, f"tests/bench/{name}/run.py", "--quick",
                        f"--build-dir={shown(BUILD)}"], logs / f"{name}.log")
            for title, name in BENCHES.items() if runner.wants(title)]
    runner.run(jobs, deadline, lambda job: count_exit_code(runner.tally, job))


FUZZ_SOURCES = CHECKOUT / "tests" / "fuzz"


def corpus_names():
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry.name for entry in (FUZZ_SOURCES / "corpus").iterdir())
    return []


def corpus_of(target):
    """tests/fuzz/corpus/<name>, where the target is called <name>, <name>_fuzz or the like."""
    short = re.sub(r"^(strata-)?fuzz[_-]|[_-]fuzz(er)?$", "", target)
    for name in (target, short, short.replace("-", "_")):
        if name in corpus_names():
            return FUZZ_SOURCES / "corpus" / name
    return None


def run_fuzz(runner, logs, deadline):
    seconds = runner.options.fuzz_seconds
    jobs = []
    for target in introspect("fuzz", "--targets"):
        name = target["name"]
        if target["type"] != "executable" or not runner.wants(name) or (
                FUZZ_SOURCES not in pathlib.Path(target["defined_in"]).parents):
            continue
        # What is found goes to the first folder; the ones after it are read.
        found = build_directory("fuzz") / "corpus" / name
        found.mkdir(parents=True, exist_ok=True)
        corpus = corpus_of(name)
        jobs.append(Job(
            name,
            [target["filename"][0], f"-max_total_time={seconds}", f"-timeout={FUZZ_INPUT_SECONDS}",
             f"-rss_limit_mb={FUZZ_MEMORY_MIB}", "-print_final_stats=1",
             f"-artifact_prefix={logs / name}-", found, *([corpus] if corpus else [])],
            logs / f"{name}.log", limit=seconds + FUZZ_EXTRA_SECONDS,
            env=sanitizer_environment("fuzz")))

    def count(job):
        inputs = [path for path in logs.glob(f"{job.name}-*") if path.suffix != ".log"]
        if inputs and not job.ok:
            program = shown(job.argv[0])
            runner.tally.add_failure(f"fuzz {job.name}", job.log,
                                     shlex.join([program, shown(inputs[0])]), job.why())
        else:
            count_exit_code(runner.tally, job)

    runner.run(jobs, deadline, count, os.cpu_count() or 1)


def fuzz_minutes(options):
    # Even if all of some dozens of targets ran one after the other.
    return 10 + options.fuzz_seconds


def known(*names):
    return lambda: names


STAGES = [
    Stage("lint", run_lint, 5, builds=()),
    Stage("unit", registered("gcc", "unit"), 20),
    Stage("mount", registered("gcc", "mount"), 20),
    Stage("suite", registered("gcc", "suite"), 20),
    Stage("conformance", run_conformance, 40),
    Stage("crash", run_crash, crash_minutes),
    Stage("systemd", pytest("tests/systemd"), 10),
    Stage("integration", pytest("tests/integration"), 80),
    Stage("bench", run_bench, 20, names=known(*BENCHES)),
    Stage("layers", pytest("tests/integration/test_lazy_trees.py", {"STRATA_LONG": "1"}), 240),
    Stage("kills", run_kills, kills_minutes),
    Stage("asan", registered("asan", "unit", "suite", limit_factor=SANITIZER_LIMIT_FACTOR), 60,
          builds=("asan",)),
    Stage("tsan", registered("tsan", "unit", "suite", limit_factor=SANITIZER_LIMIT_FACTOR), 60,
          builds=("tsan",)),
    Stage("fuzz", run_fuzz, fuzz_minutes, builds=("fuzz",), names=corpus_names),
]
QUICK = ["lint", "unit", "mount", "suite"]
# They double the time on two cores, so they run when asked for: --stage layers, kills, asan, ...
ON_DEMAND = ["layers", "kills", "asan", "tsan", "fuzz"]


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="./dev test", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", metavar="PATTERN",
                        help="only tests whose names contain it")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--stage", action="append", metavar="NAME",
                        choices=[stage.name for stage in STAGES],
                        help="only this one; may be repeated: %(choices)s")
    parser.add_argument("--crash-kills", type=int, metavar="N",
                        help="the long form of the crash tests: so many kills")
    parser.add_argument("--lazy-kills", type=int, metavar="N", default=LAZY_KILLS,
                        help="in each mode of the stage kills (default: %(default)s)")
    parser.add_argument("--fuzz-seconds", type=int, metavar="N", default=FUZZ_SECONDS,
                        help="for each target (default: %(default)s)")
    return parser.parse_args()


def exit_on_signal(number, _frame):
    # An exception, so that every `finally` on the way runs; a second signal must not stop them.
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main():
    options = parse_arguments()
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(each, exit_on_signal)
    adopt_orphans()
    os.chdir(CHECKOUT)
    # The peers of the benches and the suite share what Go has compiled.
    os.environ.setdefault("GOCACHE", str(GO / ".go-cache"))
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run of the tests in this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        return run_stages(options)


def run_stages(options):
    runner = Runner(options)
    wanted = options.stage or (
        QUICK if options.quick
        else [stage.name for stage in STAGES if stage.name not in ON_DEMAND])
    interrupted = None
    try:
        for stage in STAGES:
            if stage.name in wanted:
                runner.stage(stage)
        if runner.tally.total == 0:
            runner.tally.add_failure("test run", LOGS, "./dev test", "no test was run")
    except SystemExit as signalled:
        interrupted = signalled.code
        say("interrupted")
    finally:
        end_orphans()
    say(runner.tally.line())
    if interrupted is not None:
        return interrupted
    return 1 if runner.tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
