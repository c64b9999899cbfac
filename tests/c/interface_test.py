#!/usr/bin/env python3
"""What the C header says, as a list: functions with their types, constants, and the members of structs.

    interface_test.py HEADER TESTS LIST DOCUMENT COMPILER...

Fails if the list is not the checked-in LIST. What has changed or gone breaks programs that were
compiled before; what is new is to be added (--write does it). Fails also if a function is called by
none of the C files in TESTS, but for errors_test.c, which passes null pointers; and if the programs
in DOCUMENT do not compile without a warning, or it names what is not there.
"""

import glob
import os
import re
import subprocess
import sys
import tempfile

STRUCT = re.compile(r"^typedef struct (\w+) \{(.*?)^\} \1;", re.MULTILINE | re.DOTALL)
FUNCTION = re.compile(r"^(?!typedef)[a-z][\w* ]*?\b(ringmaster_\w+)\([^;]*;", re.MULTILINE)
OWN_INCLUDE = re.compile(r'^#include "ringmaster/(\w+\.h)"$', re.MULTILINE)
MEMBER = re.compile(r"\(\*(\w+)\)\(.*\)$|(\w+)(?:\[\d+\])?$")
CONSTANT = re.compile(r"^(?:#define|  )\s*(RINGMASTER_[A-Z0-9_]+)(?: =)? \S", re.MULTILINE)


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text)


def read_with_own_includes(path):
    with open(path, encoding="utf-8") as file:
        text = without_comments(file.read())
    return OWN_INCLUDE.sub(
        lambda found: read_with_own_includes(os.path.join(os.path.dirname(path), found[1])), text)


def members(header):
    for struct in STRUCT.finditer(header):
        declared = [" ".join(text.split()) for text in struct.group(2).split(";") if text.strip()]
        yield struct.group(1), [(found[1] or found[2], text) for text in declared
                                for found in [MEMBER.search(text)]]


def described(header, include, compiler):
    """The list, as the compiler lays the structs out."""
    lines = ["#include <stdio.h>", "#include <ringmaster/ringmaster.h>", "int main(void) {"]
    for struct, names in members(header):
        lines.append(f'printf("struct {struct} %zu\\n", sizeof({struct}));')
        for name, declaration in names:
            lines.append(f'printf("member {struct}.{name} %zu %zu: {declaration}\\n",'
                         f" offsetof({struct}, {name}), sizeof((({struct}*)0)->{name}));")
    for name in CONSTANT.findall(header):
        if "VERSION" not in name:
            lines.append(f'printf("constant {name} %lld\\n", (long long){name});')
    lines.append("return 0; }")
    with tempfile.TemporaryDirectory() as scratch:
        program = os.path.join(scratch, "program")
        subprocess.run([*compiler, "-w", "-x", "c", "-std=c99", "-I", include, "-o", program, "-"],
                       input="\n".join(lines), text=True, check=True)
        told = subprocess.run([program], text=True, check=True, stdout=subprocess.PIPE).stdout
    return told.splitlines() + [f"function {' '.join(found[0].split())}"
                                for found in FUNCTION.finditer(header)]


def problems_of_document(path, names, include, compiler):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    programs = re.findall(r"^```c\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if not programs:
        yield f"{path} has no program"
    for program in programs:
        run = subprocess.run([*compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", "-x", "c",
                              "-std=c99", "-D_GNU_SOURCE", "-I", include, "-fsyntax-only", "-"],
                             input=program, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, check=False)
        if run.returncode != 0:
            yield f"{path}: a program does not compile: {run.stdout}"
    for name in sorted(set(re.findall(r"\b(?:ringmaster|RINGMASTER)_\w*[^\W_](?!\w|…|_…)", text))):
        if name not in names:
            yield f"{path} names {name}, which the header does not have"


def main():
    write = "--write" in sys.argv
    header_path, tests, list_path, document, *compiler = [arg for arg in sys.argv[1:] if arg != "--write"]
    header = read_with_own_includes(header_path)
    found = described(header, os.path.dirname(os.path.dirname(header_path)), compiler)
    functions = set(FUNCTION.findall(header))
    if len(functions) < 50 or len(found) < 200:
        sys.exit(f"found {len(functions)} functions and {len(found)} lines: is this the header?")
    if write:
        with open(list_path, "w", encoding="utf-8") as file:
            file.write("\n".join(found) + "\n")
    with open(list_path, encoding="utf-8") as file:
        listed = file.read().splitlines()
    problems = [f"changed or gone, which breaks programs that were compiled before: {line}"
                for line in listed if line not in set(found)]
    problems += [f"new, add it to {list_path}: {line}" for line in found if line not in set(listed)]

    called = ""
    for path in sorted(glob.glob(os.path.join(tests, "*.c"))):
        if os.path.basename(path) == "errors_test.c":
            continue
        with open(path, encoding="utf-8") as file:
            called += without_comments(file.read())
    problems += [f"no C file in {tests} calls {name}" for name in sorted(functions)
                 if not re.search(rf"\b{name}\(", called)]
    names = set(re.findall(r"\b(?:ringmaster|RINGMASTER)_\w+", header))
    problems += problems_of_document(document, names, os.path.dirname(os.path.dirname(header_path)),
                                     compiler)
    print("\n".join(problems) or f"{len(functions)} functions, {len(found)} lines")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
