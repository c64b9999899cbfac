#!/usr/bin/env python3
"""The manual pages say what the programs and the header say.

    man_test.py PAGES HEADER C_PAGES SCDOC PROGRAM...

PAGES is the folder of the written pages. The page of each program has every option of its --help and
no other, and every public function has a page of its own that describes it. SCDOC may be empty, then
none is rendered.
"""

import os
import re
import subprocess
import sys
import tempfile

OPTION = re.compile(r"^  (?:(-\w),)?(--[\w-]+)", re.MULTILINE)
NAMED = re.compile(r"^\*(-.*)$", re.MULTILINE)
FUNCTION = re.compile(r"^(?!typedef)[a-z][\w* ]*?\b(ringmaster_\w+)\(", re.MULTILINE)


def help_of(program, *command):
    return subprocess.run([program, *command, "--help"], text=True, check=True,
                          stdout=subprocess.PIPE).stdout


def options_of(text):
    return {word for found in OPTION.findall(text) for word in found if word}


def sections_of(page):
    """The options that each section of a page explains, by its heading."""
    parts = re.split(r"^# (.*)$", page, flags=re.MULTILINE)
    return {heading: {option for line in NAMED.findall(text)
                      for option in re.findall(r"(?:^|\*)(--?[\w-]+)\*", line)}
            for heading, text in zip(parts[1::2], parts[2::2])}


def problems_of_program(program, folder):
    name = os.path.basename(program)
    path = os.path.join(folder, f"{name}.1.scd")
    with open(path, encoding="utf-8") as file:
        page = file.read()
    sections = sections_of(page)
    text = help_of(program)
    commands = re.findall(r"^  ([a-z][\w-]*) {2,}", text.partition("\nSubcommands:\n")[2], re.MULTILINE)
    compared = [(name, options_of(text), sections.get("OPTIONS", set()))]
    for command in commands:
        explained = sections.get("OPTIONS OF BOTH", set()) | sections.get(
            f"OPTIONS OF {command.upper()}", set())
        compared.append((f"{name} {command}", options_of(help_of(program, command)), explained))
    for what, there, explained in compared:
        if not there:
            yield f"{what} --help has no options"
        for option in sorted(there - explained):
            yield f"{path} does not explain {option} of {what}"
        for option in sorted(explained - there):
            yield f"{path} explains {option}, which {what} does not have"
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"):
        if heading not in sections:
            yield f"{path} has no section {heading}"


def problems_of_header(header, c_pages, scdoc):
    functions = set()
    for path in (header, os.path.join(os.path.dirname(header), "version.h")):
        with open(path, encoding="utf-8") as file:
            functions |= set(FUNCTION.findall(file.read()))
    listed = subprocess.run([sys.executable, c_pages, "list", header], text=True, check=True,
                            stdout=subprocess.PIPE).stdout.split()
    for name in sorted(functions - {page[:-2] for page in listed}):
        yield f"{name} has no page"
    if not scdoc:
        return
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, c_pages, "write", header, scdoc, scratch], check=True)
        for name in sorted(functions):
            with open(os.path.join(scratch, f"{name}.3"), encoding="utf-8") as file:
                text = file.read()
            alias = re.fullmatch(r"\.so man3/(\w+\.3)\n", text)
            if alias:
                with open(os.path.join(scratch, alias[1]), encoding="utf-8") as file:
                    text = file.read()
            # As its declaration, in the synopsis and where it is described.
            if len(re.findall(rf"\b{name}\(", text.replace("\\_", "_"))) < 2:
                yield f"the page of {name} does not describe it"


def main():
    folder, header, c_pages, scdoc, *programs = sys.argv[1:]
    problems = []
    for program in programs:
        problems += problems_of_program(program, folder)
    problems += problems_of_header(header, c_pages, scdoc)
    print("\n".join(problems) or f"{len(programs)} programs and the header")
    return 1 if problems or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
