"""Runs the commands that a guide prints behind `$`, in one shell and in their order, as they stand.

python -m tests.endtoend.guide docs/cluster.md said.txt      runs them here, their output into said.txt, and tells exit codes and what
                                                             is printed there that they did not say
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from dmoe.errors import USER_ERROR

PROMPT = "    $ "
END = "<exit code of command {number}: {code}>"
FIGURE = re.compile(r"\d[\d,.:e+-]*")


@dataclass
class Command:
    """A command and the lines that the guide prints below it; then its output and exit code."""

    text: str
    printed: list[str] = field(default_factory=list)
    said: str = ""
    code: int | None = None

    @property
    def expected(self) -> int:
        """A launch that ends in a line about the user's mistake is printed with it."""
        return USER_ERROR if self.printed and self.printed[0].strip().startswith("launch/components.py: ") else 0

    @property
    def missing(self) -> list[str]:
        """Printed lines that it did not say, whatever the figures in them."""
        said = plain(self.said)
        return [line for line in self.printed if plain(line) not in said]


def plain(text: str) -> str:
    """Without the colours of a terminal, every figure a 0, every gap one blank."""
    return " ".join(FIGURE.sub("0", re.sub(r"\x1b\[[\d;]*m", "", text)).split())


def commands_of(guide: str) -> list[Command]:
    """In their order; a line that ends in a backslash goes on with the next."""
    found: list[Command] = []
    inside = False
    for line in guide.splitlines():
        if found and found[-1].text.endswith("\\"):
            found[-1].text += f"\n{line}"
        elif line.startswith(PROMPT):
            found.append(Command(line.removeprefix(PROMPT)))
            inside = True
        elif inside and line.startswith("    "):
            found[-1].printed.append(line)
        else:
            inside = False
    return found


def run(commands: list[Command], folder: Path, transcript: Path, environment: dict[str, str], seconds: float) -> None:
    """Runs them in one bash and notes what each said. One in the background has said its first printed line before the next begins.

    Args:
        transcript: file that gets all output.
        seconds: for all of them.
    """
    script = []
    for number, command in enumerate(commands):
        script += ["cat <<'PRINTED'", f"$ {command.text}", "PRINTED", command.text, "code=$?"]
        if command.text.endswith("&"):
            script.append(f"until grep -q '{command.printed[0].strip()}' '{transcript}'; do kill -0 $! || break; sleep 0.5; done")
        script.append(f'echo "{END.format(number=number, code="$code")}"')
        # What follows builds on it.
        script.append(f"[ $code = {command.expected} ] || exit 1")
    with open(transcript, "w") as output:
        shell = subprocess.Popen(
            ["bash", "--norc", "-c", "set -m\n" + "\n".join(script)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(seconds)
        finally:
            end_session(shell.pid)
            shell.wait()
    rest = transcript.read_text()
    for number, command in enumerate(commands):
        parts = re.split(re.escape(END.format(number=number, code="CODE")).replace("CODE", r"(\d+)"), rest, maxsplit=1)
        command.said, code, rest = parts if len(parts) == 3 else (rest, None, "")
        command.code = int(code) if code else None


def end_session(session: int) -> None:
    """Asks all that still runs in it to end, such as a program in the background, and waits for that; the shell itself is killed."""
    until = time.monotonic() + 180
    while found := _members(session):
        late = time.monotonic() > until
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL if late or process == session else signal.SIGTERM)
        time.sleep(0.5)


def _members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = entry.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(entry.parent.name))
    return found


def main() -> None:
    began = time.monotonic()
    commands = commands_of(Path(sys.argv[1]).read_text())
    transcript = Path(sys.argv[2]).resolve()
    run(commands, Path.cwd(), transcript, dict(os.environ), 3000)
    print(f"{len(commands)} commands, {time.monotonic() - began:.0f} s")
    for command in commands:
        print(f"{command.code}  $ {command.text}")
        for line in command.missing:
            print(f"      not said: {line}")


if __name__ == "__main__":
    main()
