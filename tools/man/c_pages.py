#!/usr/bin/env python3
"""Manual pages of the interface for C, made of what the headers say.

    c_pages.py list HEADER                  the pages, one a line; each function is one as well
    c_pages.py write HEADER SCDOC FOLDER    writes them

Each section of the header is a page. The text before the first section is the overview,
ringmaster(3), together with version.h.
"""

import os
import re
import subprocess
import sys

# The sections of the header, and the pages that they become. None: into the overview.
PAGES = {
    "Errors, fork": "ringmaster_errors",
    "Handles": None,
    "Connections and leases": "ringmaster_connections",
    "The balancer": "ringmaster_balancers",
    "Policies": "ringmaster_policies",
    "Sources": "ringmaster_sources",
    "Workers": "ringmaster_workers",
    "Tickets": "ringmaster_tickets",
    "Statistics": "ringmaster_statistics",
    "The end": "ringmaster_shutdown",
    "Listeners from elsewhere: listeners.h": "ringmaster_listeners_from_elsewhere",
}
OVERVIEW = "ringmaster"
SECTION = re.compile(r"^// --- (.*?) -+$", re.MULTILINE)
FUNCTION = re.compile(r"^(?!typedef)[a-z][\w* ]*?\b(ringmaster_\w+)\([^;]*;", re.MULTILINE)
TYPE = re.compile(r"^\} (ringmaster_\w+);", re.MULTILINE)


def escaped(text):
    text = re.sub(r"([\\*_`])", r"\\\1", text)
    return re.sub(r"^([#\-|\[\];.+<>~])", r"\\\1", text)


def text_of(comment):
    """Lines of a comment, without its marks, as scdoc wants them."""
    result = []
    literal = False
    for line in comment + [""]:
        code = line.startswith("  ")
        if code != literal and (code or line):
            result.append("```")
            literal = code
        result.append(line[2:] if code else line if literal else escaped(line.strip()))
    if literal:
        result.append("```")
    return result


def blocks_of(text):
    """Comment and code of each block of a section: what stands between empty lines."""
    for block in re.split(r"\n\n(?!  )", text):
        lines = [line for line in block.split("\n") if line.strip()]
        comment = []
        while lines and lines[0].startswith("//"):
            comment.append(re.sub(r"^// ?", "", lines.pop(0)))
        # What only a compiler reads.
        code = [line for line in lines if not re.match(r"#(ifdef|ifndef|endif|include)|extern|\}  //", line)]
        if comment or code:
            yield comment, code


def described(text):
    for comment, code in blocks_of(text):
        names = FUNCTION.findall("\n".join(code)) or TYPE.findall("\n".join(code))
        if names:
            yield "## " + escaped(", ".join(names))
        yield ""
        if code:
            yield from ["```", *code, "```", ""]
        yield from text_of(comment)
        yield ""


def page(name, title, text, more=()):
    functions = [found[0] for found in FUNCTION.finditer(text)]
    lines = [f"{name}(3)", "", "# NAME", "", f"{escaped(name)} - {title}", "", "# SYNOPSIS", "", "```",
             "#include <ringmaster/ringmaster.h>", "", *"\n".join(functions).split("\n"), "```", "",
             "Link with *$(pkg-config --cflags --libs ringmaster-c)*.", "", "# DESCRIPTION", ""]
    lines += [*more, *described(text), "# SEE ALSO", "", "*ringmaster*(3), *ringmaster*(7)"]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def parsed(header):
    """Head, and the text of each section by its title."""
    with open(header, encoding="utf-8") as file:
        text = file.read()
    with open(os.path.join(os.path.dirname(header), "version.h"), encoding="utf-8") as file:
        version = file.read().partition("#endif\n")[2]
    head = text.partition("\n#ifndef")[0].rstrip()
    parts = SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2]))
    if set(sections) != set(PAGES):
        sys.exit(f"c_pages.py knows no page for {sorted(set(sections) ^ set(PAGES))}: add it to PAGES")
    return head, version, sections


def pages_of(header):
    head, version, sections = parsed(header)
    pages = {}
    overview = version
    functions = {}
    for title, text in sections.items():
        name = PAGES[title]
        if name is None:
            overview += text
            continue
        short = title.partition(":")[0]
        pages[name] = page(name, f"the interface of ringmaster for C: {short.lower()}", text)
        functions[name] = FUNCTION.findall(text)
    more = text_of([re.sub(r"^// ?", "", line) for line in head.split("\n")])
    for name in pages:
        more += [f"*{escaped(name)}*(3)", f"\t{escaped(', '.join(functions[name]))}", ""]
    pages[OVERVIEW] = page(OVERVIEW, "the interface for C", overview, more)
    functions[OVERVIEW] = FUNCTION.findall(overview)
    # Whoever asks for a function gets the page that it stands on.
    aliases = {function: name for name, names in functions.items() for function in names
               if function not in pages}
    return pages, aliases


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "list":
        pages, aliases = pages_of(sys.argv[2])
        print("\n".join(f"{name}.3" for name in [*pages, *aliases]))
        return 0
    if len(sys.argv) != 5 or sys.argv[1] != "write":
        print(__doc__)
        return 2
    _, _, header, scdoc, folder = sys.argv
    pages, aliases = pages_of(header)
    for name, text in pages.items():
        with open(os.path.join(folder, f"{name}.3"), "wb") as file:
            run = subprocess.run([scdoc], input=text.encode(), stdout=file, check=False)
        if run.returncode != 0:
            sys.exit(f"scdoc cannot read the page {name}, of which this is the text:\n{text}")
    for name, target in aliases.items():
        with open(os.path.join(folder, f"{name}.3"), "w", encoding="utf-8") as file:
            file.write(f".so man3/{target}.3\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
