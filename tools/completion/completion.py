#!/usr/bin/env python3
"""Completion of a program's command line for a shell, made of what its --help says.

    completion.py bash|zsh|fish PROGRAM

Prints what the shell is to load. PROGRAM is run with --help, and if it has commands, each of them
with --help. A value that is one of several names is completed, and so is the name of a file.
"""

import os
import re
import subprocess
import sys

OPTION = re.compile(r"^  (?:(-\w),)?(--[\w-]+)(?: ([\w,.]+))?")
FIRST = re.compile(r"^(  -h,--help +)\S", re.MULTILINE)
COMMAND = re.compile(r"^  ([a-z][\w-]*) {2,}(.*)$")

# Names that the help of an option has somewhere in its sentences, rather than as a list.
IN_SENTENCES = {
    "--intake": ["poll-accept", "accept", "readiness"],
    "--handoff": ["inbox", "completion", "direct"],
    "--host": ["thread", "loop", "ring"],
    "--service": ["sleep", "spin"],
    "--mechanisms": ["all", "rivals", "ringmaster", "direct"],
}
MORE = {"ringmaster-run --policy": ["none"], "ringmaster-sim --policies": ["all"],
        "ringmaster-sim --workload": ["all"], "ringmaster-bench --workload": ["all"]}
# What follows the options is the command line of another program.
PREFIXES = ("ringmaster-run",)


class Option:
    def __init__(self, program, short, name, kind, text):
        self.short = short
        self.name = name
        self.takes = kind is not None
        self.kind = kind or ""
        self.file = self.kind.partition(".")[0] in ("FILE", "PATH")
        self.many = self.kind == "A,B"
        # The beginning is enough for a line of a menu; not of "In these three: …".
        text = re.sub(r"^In [^:]*: ", "", text)
        self.text = re.split(r"[:;(\[]|\. ", text)[0].strip().replace("'", "’")
        self.names = IN_SENTENCES.get(name) or names_listed(text)
        more = MORE.get(f"{program} {name}", [])
        self.names = self.names + more
        for value in self.names:
            if not re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", text):
                sys.exit(f"completion.py: the help of {program} {name} does not name {value}")
        if self.kind in ("NAME", "A,B") and not self.names or name == "--policy" and self.names == more:
            sys.exit(f"completion.py: the help of {program} {name} has no names: {text}")


def names_listed(text):
    """Those of "…: one, two:PARAMETER or three[:more]". Empty if there is no such list."""
    for part in re.split(r": |; |\. |^", text)[1:]:
        words = re.split(r", | or ", part.strip())
        names = [re.split(r"[:\[]", word)[0] for word in words]
        if len(names) > 1 and all(re.fullmatch(r"[a-z][a-z0-9-]*", name) for name in names):
            return names
    return []


def help_of(path, *command):
    return subprocess.run([path, *command, "--help"], text=True, check=True,
                          stdout=subprocess.PIPE).stdout


def options_of(program, text):
    """Each begins a line; what it means begins in one column, in the same line or in the next."""
    lines = text.split("\n")
    column = len(FIRST.search(text)[1])
    found = []
    for line, following in zip(lines, lines[1:] + [""]):
        match = OPTION.match(line)
        if match:
            words = line[column:] if line[column - 1:column] == " " else following
            found.append(Option(program, *match.groups(), words.strip()))
    return found


def commands_of(text):
    _, _, rest = text.partition("\nSubcommands:\n")
    return [match.groups() for line in rest.split("\n") for match in [COMMAND.match(line)] if match]


# --- The shells: each gets the program, its options, and for each command its options -------------


def bash_cases(options):
    for option in options:
        if not option.takes:
            continue
        if option.names:
            call = "_many" if option.many else "_one"
            yield f'      {option.name}) {call} {" ".join(option.names)}; return ;;'
        elif option.file:
            yield f"      {option.name}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); return ;;"
        else:
            yield f"      {option.name}) return ;;"


def bash_words(options):
    return " ".join(word for option in options for word in (option.short, option.name) if word)


def bash(program, options, commands):
    function = "_" + program.replace("-", "_")
    lines = [f"# Completion of {program} for bash.", f"{function}() {{",
             "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command= i",
             "  # --option=value comes in three words.",
             "  if [[ $word == = ]]; then",
             "    word=",
             "  elif [[ $before == = ]]; then",
             "    before=${COMP_WORDS[COMP_CWORD - 2]}",
             "  fi",
             "  COMPREPLY=()",
             '  _one() { mapfile -t COMPREPLY < <(compgen -W "$*" -- "$word"); }',
             "  # The last of several names with commas between them.",
             "  _many() {",
             "    local first=",
             "    if [[ $word == *,* ]]; then first=${word%,*},; fi",
             '    mapfile -t COMPREPLY < <(compgen -P "$first" -W "$*" -- "${word##*,}")',
             "    compopt -o nospace",
             "  }"]
    if program in PREFIXES:
        taking = "|".join(option.name for option in options if option.takes)
        lines += ["  for ((i = 1; i < COMP_CWORD; ++i)); do",
                  "    case ${COMP_WORDS[i]} in",
                  f"      {taking})",
                  "        if [[ ${COMP_WORDS[i + 1]} == = ]]; then ((++i)); fi",
                  "        ((++i)) ;;",
                  "      --) ((++i)); break ;;",
                  "      -*) ;;",
                  "      *) break ;;",
                  "    esac",
                  "  done",
                  "  # From here on, the other program's.",
                  "  if ((i < COMP_CWORD)) || { ((i == COMP_CWORD)) && [[ $word != -* ]]; }; then",
                  "    if declare -F _command_offset >/dev/null; then",
                  "      _command_offset \"$i\"",
                  "    elif ((i == COMP_CWORD)); then",
                  "      mapfile -t COMPREPLY < <(compgen -c -- \"$word\")",
                  "    else",
                  "      compopt -o default",
                  "    fi",
                  "    return",
                  "  fi"]
    if commands:
        names = "|".join(name for name, _, _ in commands)
        lines += ["  for ((i = 1; i < COMP_CWORD; ++i)); do",
                  "    case ${COMP_WORDS[i]} in",
                  f"      {names}) command=${{COMP_WORDS[i]}}; break ;;",
                  "    esac",
                  "  done"]
    lines.append("  case $command in")
    for name, _, own in commands:
        lines += [f"  {name})", "    case $before in", *bash_cases(own), "    esac",
                  f"    _one {bash_words(own)} ;;"]
    lines += ["  *)", "    case $before in", *bash_cases(options), "    esac",
              f"    _one {' '.join([bash_words(options), *(name for name, _, _ in commands)])} ;;",
              "  esac", "}", f"complete -F {function} {program}"]
    return lines


def zsh_spec(option):
    text = option.text.replace("[", "").replace("]", "").replace("`", "")
    if not option.takes:
        if option.short:
            return f"'({option.short} {option.name})'{{{option.short},{option.name}}}'[{text}]'"
        return f"'{option.name}[{text}]'"
    action = ""
    if option.names:
        names = " ".join(option.names)
        action = f"_values -s , name {names}" if option.many else f"({names})"
    elif option.file:
        action = "_files"
    return f"'{option.name}=[{text}]:{option.kind}:{action}'"


def zsh_arguments(options, more=(), flags=""):
    specs = [zsh_spec(option) for option in options] + list(more)
    return [f"_arguments {flags}\\"] + [f"  {spec} \\" for spec in specs[:-1]] + [f"  {specs[-1]}"]


def zsh(program, options, commands):
    lines = [f"#compdef {program}", f"# Completion of {program} for zsh."]
    if program in PREFIXES:
        return lines + zsh_arguments(options, ["'(-)1:command: _command_names -e'",
                                               "'*::arguments: _normal'"])
    if not commands:
        return lines + zsh_arguments(options)
    names = " ".join(f'{name}\\:"{text.replace(chr(39), "’")}"' for name, text, _ in commands)
    lines += ["local curcontext=$curcontext state line",
              *zsh_arguments(options, [f"'1:command:(({names}))'", "'*:: :->rest'"], "-C "),
              'if [[ $state == rest ]]; then', "  case $line[1] in"]
    for name, _, own in commands:
        lines += [f"  {name})", *("  " + line for line in zsh_arguments(own)), "  ;;"]
    return lines + ["  esac", "fi"]


def fish_line(program, option, condition):
    line = f"complete -c {program}{condition} -l {option.name[2:]}"
    if option.short:
        line += f" -s {option.short[1:]}"
    if option.names:
        names = " ".join(option.names)
        line += f" -x -a '(__fish_append , {names})'" if option.many else f" -x -a '{names}'"
    elif option.file:
        line += " -r -F"
    elif option.takes:
        line += " -x"
    return line + f" -d '{option.text}'"


def fish(program, options, commands):
    lines = [f"# Completion of {program} for fish."]
    if program in PREFIXES:
        taking = " ".join(option.name for option in options if option.takes)
        lines.append(f"complete -c {program} -x -a '(__fish_complete_subcommand -- {taking})'")
    else:
        lines.append(f"complete -c {program} -f")
    condition = " -n __fish_use_subcommand" if commands else ""
    lines += [fish_line(program, option, condition) for option in options]
    for name, text, own in commands:
        text = text.replace("'", "’")
        lines.append(f"complete -c {program} -n __fish_use_subcommand -a {name} -d '{text}'")
        condition = f" -n '__fish_seen_subcommand_from {name}'"
        lines += [fish_line(program, option, condition) for option in own]
    return lines


def main():
    shells = {"bash": bash, "zsh": zsh, "fish": fish}
    if len(sys.argv) != 3 or sys.argv[1] not in shells:
        print(__doc__)
        return 2
    shell, path = sys.argv[1:]
    program = os.path.basename(path)
    text = help_of(path)
    commands = [(name, said, options_of(program, help_of(path, name)))
                for name, said in commands_of(text)]
    print("\n".join(shells[shell](program, options_of(program, text), commands)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
