#!/usr/bin/env python3
"""Each shell completes the command lines of the programs by the files that are installed for it.

    completion_test.py FOLDER PROGRAM...

FOLDER has the files. Each option that a PROGRAM's --help names is offered. In bash and zsh somebody types at a terminal and presses TAB; fish says what it
would offer. A shell that is not installed is skipped, with a sentence.
"""

import os
import pty
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import subprocess

# What is typed, and what stands there or is offered afterwards.
TYPED = (
    ("ringmaster-echo --pol", "--policy"),
    ("ringmaster-echo --policy least", "least-loaded"),
    ("ringmaster-echo --loop ep", "epoll"),
    ("ringmaster-bench com", "compare"),
    ("ringmaster-bench compare --hog", "--hogs"),
    ("ringmaster-bench demo --policies exclusive-fifo,roun", "exclusive-fifo,round-robin"),
    ("ringmaster-sim --csv res", "results.csv"),
    ("ringmaster-run --policy no", "none"),
    ("ringmaster-run --policy least", "least-loaded"),
    ("ringmaster-run --policy none -- sleepy", "sleepy-server"),
    ("ringmaster-run --stats 5 sleepy-server res", "results.csv"),
)
# Not what belongs to another command.
NEVER = (("ringmaster-bench demo --hog", "--hogs"),)
DEADLINE = 30


class Terminal:
    """An interactive shell at a terminal of its own."""

    def __init__(self, command, folder, environment):
        self.said = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, pattern):
        """Whether the shell says it in time. What came before is forgotten."""
        end = time.monotonic() + DEADLINE
        while not re.search(pattern, self.said):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            if not ready:
                return False
            try:
                more = os.read(self.fd, 65536)
            except OSError:
                return False
            self.said += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", more.decode(errors="replace"))
        return True

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def problems_at_terminal(shell, command, set_up, folder, environment):
    terminal = Terminal(command, folder, environment)
    try:
        terminal.type(set_up + " echo rea''dy\n")
        if not terminal.wait_for(r"ready\r?\n"):
            yield f"{shell} does not start: {terminal.said}"
            return
        for typed, offered in TYPED:
            terminal.said = ""
            terminal.type(typed + "\t")
            words, last = typed.rsplit(" ", 1)
            if not terminal.wait_for(re.escape(f"{words} ") + r".*" + re.escape(offered)):
                yield f"{shell}: after \"{typed}\" TAB does not bring {offered}: {terminal.said!r}"
                return
            terminal.said = ""
            terminal.type("\x15echo do''ne\n")
            terminal.wait_for(r"done\r?\n")
        for typed, offered in NEVER:
            terminal.said = ""
            # What is typed behind it comes when it was completed, or not.
            terminal.type(typed + "\t#end")
            if not terminal.wait_for("#end") or offered in terminal.said:
                yield f"{shell}: after \"{typed}\" TAB brings {offered}: {terminal.said!r}"
    finally:
        terminal.end()


def problems_of_fish(path, folder, environment):
    def offers(typed):
        loads = "; ".join(f"source {os.path.join(path, name)}" for name in os.listdir(path)
                          if name.endswith(".fish"))
        run = subprocess.run(["fish", "--no-config", "-c", f"{loads}; complete -C '{typed}'"], cwd=folder,
                             env=environment, text=True, check=False, stdout=subprocess.PIPE)
        return [line.partition("\t")[0] for line in run.stdout.split("\n")]

    for typed, offered in TYPED:
        if offered not in offers(typed):
            yield f"fish: for \"{typed}\" it does not offer {offered}, but {offers(typed)}"
    for typed, offered in NEVER:
        if offered in offers(typed):
            yield f"fish: for \"{typed}\" it offers {offered}"


def options_of(program):
    said = subprocess.run([program, "--help"], text=True, check=True, stdout=subprocess.PIPE).stdout
    return set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", said, re.MULTILINE))


def problems_of_options(path, program):
    """Asked of what bash loads; the other shells' files are made of the same list."""
    name = os.path.basename(program)
    function = "_" + name.replace("-", "_")
    run = subprocess.run(["bash", "-c", f". {path}/{name}; COMP_WORDS=({name} --) COMP_CWORD=1; {function};"
                          ' printf "%s\\n" "${COMPREPLY[@]}"'],
                         text=True, check=True, stdout=subprocess.PIPE)
    offered = set(run.stdout.split())
    if offered != options_of(program):
        yield f"{name}: offers {sorted(offered)}, and --help has {sorted(options_of(program))}"


def main():
    path = os.path.abspath(sys.argv[1])
    problems = [problem for program in sys.argv[2:] for problem in problems_of_options(path, program)]
    asked = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("results.csv", "sleepy-server", "ringmaster-run", "ringmaster-echo",
                     "ringmaster-bench", "ringmaster-sim"):
            with open(os.path.join(folder, name), "w", encoding="utf-8"):
                pass
            os.chmod(os.path.join(folder, name), 0o755)
        environment = {"PATH": folder + ":/usr/bin:/bin", "HOME": folder, "TERM": "dumb", "LANG": "C.UTF-8",
                       "XDG_CONFIG_HOME": folder, "XDG_DATA_HOME": folder, "PS1": "> "}
        for shell in ("bash", "zsh", "fish"):
            if not shutil.which(shell):
                print(f"skipped: {shell} is not installed")
                continue
            asked.append(shell)
            if shell == "bash":
                set_up = f"for f in {path}/ringmaster-*[a-z]; do case $f in *.fish) ;; *) . $f ;; esac; done;"
                problems += problems_at_terminal(shell, ["bash", "--norc", "--noprofile", "-i"], set_up,
                                                 folder, environment)
            elif shell == "zsh":
                set_up = f"fpath=({path} $fpath); autoload -U compinit; compinit -u -D;"
                problems += problems_at_terminal(shell, ["zsh", "-f", "-i"], set_up, folder, environment)
            else:
                problems += problems_of_fish(path, folder, environment)
    print("\n".join(problems) or f"{', '.join(asked)}: {len(TYPED)} lines each")
    return 1 if problems else 0 if asked else 77


if __name__ == "__main__":
    sys.exit(main())
