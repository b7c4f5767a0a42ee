"""A small interpreter of what verification pods run: lists, pipes, loops, conditions, and a handful of tools.

It runs no program of this machine. Time inside is counted, not waited for: the result says which line is written
how many seconds after the start, and when the command ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .container_tools import FOREVER, TOOLS, Machine
from .shell_words import Token, UnsupportedError, Word, tokens

MAX_STEPS = 2000  # commands of one script; a loop that does more is taken to run for ever
_ENDS = {"done", "fi", "then", "else", "elif", "do"}


class _ExitError(Exception):
    """The script ends with a code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Program:
    """What a container does: lines with their offset in seconds, and when and how it ends (`ends` None: never)."""

    lines: list[tuple[float, str]] = field(default_factory=list)
    ends: float | None = None
    code: int = 0


def run_script(script: str, machine: Machine) -> Program:
    """Return what `sh -c script` does on this machine; what is not simulated ends it with code 2 and says so."""
    shell = _Shell(machine)
    try:
        code = shell.run(tokens(script))
    except _ExitError as stop:
        code = stop.code
    except UnsupportedError as error:
        shell.lines.append((shell.clock, f"SIMULATED shell: {error} is not simulated"))
        code = 2
    return Program(shell.lines, None if shell.clock >= FOREVER else shell.clock, code)


def run_words(words: list[str], machine: Machine) -> Program | None:
    """Return what a command given as words does; None for a program that the simulation does not know."""
    name = words[0].rsplit("/", 1)[-1]
    if name in {"sh", "bash", "dash", "ash"}:
        for at, word in enumerate(words[1:], 1):
            if word.startswith("-") and word.endswith("c") and at + 1 < len(words):
                return run_script(words[at + 1], machine)
    if name not in TOOLS:
        return None
    code, text, seconds = TOOLS[name](machine, words[1:], "")
    lines = [(0.0, line) for line in text.splitlines()]
    return Program(lines, None if seconds >= FOREVER else seconds, code)


class _Shell:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.lines: list[tuple[float, str]] = []
        self.clock = 0.0
        self.steps = 0
        self.tokens: list[Token] = []
        self.at = 0

    def run(self, found: list[Token]) -> int:
        """Run a whole script; return its exit code."""
        self.tokens, self.at = found, 0
        code = self._list(active=True)
        if self.at < len(self.tokens):
            raise UnsupportedError(f"{self.tokens[self.at]!r} at this place")
        return code

    def _keyword(self) -> str:
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        return token.bare if isinstance(token, Word) else ""

    def _expect(self, keyword: str) -> None:
        if self._keyword() != keyword:
            raise UnsupportedError(f"a missing {keyword!r}")
        self.at += 1

    def _skip(self, *operators: str) -> None:
        while self.at < len(self.tokens) and self.tokens[self.at] in operators:
            self.at += 1

    def _list(self, *, active: bool) -> int:
        """Run commands joined by ; && || up to a keyword that ends them; `active` False only reads over them."""
        code, joined = 0, ";"
        self._skip(";", "\n")
        while self.at < len(self.tokens) and self._keyword() not in _ENDS:
            wanted = active and self.clock < FOREVER
            wanted = wanted and (joined == ";" or (joined == "&&") == (code == 0))
            result = self._pipeline(active=wanted)
            if wanted:
                code = result
                self.machine.env["?"] = str(code)
                failed = code != 0 and self.machine.env.get("-e") == "1"
                if failed and not self._next_is("&&", "||"):
                    raise _ExitError(code)
            operator = self.tokens[self.at] if self.at < len(self.tokens) else ";"
            if operator == "&":
                raise UnsupportedError("a command in the background")
            joined = operator if operator in {"&&", "||"} and isinstance(operator, str) else ";"
            self._skip(";", "\n", "&&", "||")
        return code

    def _next_is(self, *operators: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in operators

    def _pipeline(self, *, active: bool) -> int:
        keyword = self._keyword()
        if keyword in {"while", "until"}:
            return self._while(active=active)
        if keyword == "for":
            return self._for(active=active)
        if keyword == "if":
            return self._if(active=active)
        code, text = 0, ""
        while True:
            words = self._command()
            if active and words:
                code, text = self._run(words, text)
            if not self._next_is("|"):
                break
            self.at += 1
        if active:
            self.lines += [(self._written, line) for line in text.splitlines()]
        return code

    def _command(self) -> list[Word]:
        words: list[Word] = []
        while self.at < len(self.tokens) and isinstance(token := self.tokens[self.at], Word):
            words.append(token)
            self.at += 1
        if not words:
            raise UnsupportedError("a sub-shell or an empty command")
        return words

    def _run(self, words: list[Word], given: str) -> tuple[int, str]:
        self.steps += 1
        self._written = self.clock
        if self.steps > MAX_STEPS:
            self.clock = FOREVER
            return 0, ""
        env = self.machine.env
        while words and not words[0].pieces[0][1] and "=" in words[0].pieces[0][0]:
            name, _, value = words[0].expanded(env).partition("=")
            env[name] = value
            words = words[1:]
        if not words:
            return 0, ""
        # An unquoted word that expands to several is split, as the shell does.
        texts = [part for w in words for part in ([w.expanded(env)] if w.quoted else w.expanded(env).split())]
        negated = texts[:1] == ["!"]
        texts = texts[1:] if negated or texts[:1] == ["exec"] else texts
        if texts[:1] == ["exit"]:
            raise _ExitError(int(texts[1]) if len(texts) > 1 else int(env.get("?", "0")))
        if not texts:
            return 0, ""
        tool = TOOLS.get(texts[0].rsplit("/", 1)[-1])
        if tool is None:
            return 127, f"sh: 1: {texts[0]}: not found\n"
        code, text, seconds = tool(self.machine, texts[1:], given)
        self.clock = min(FOREVER, self.clock + seconds)
        return int(code == 0) if negated else code, text

    _written: float = 0.0

    def _while(self, *, active: bool) -> int:
        until = self._keyword() == "until"
        self.at += 1
        start, code = self.at, 0
        while True:
            self.at = start
            running = active and self.clock < FOREVER
            holds = (self._list(active=running) == 0) != until
            self._expect("do")
            again = running and holds
            result = self._list(active=again)
            self._expect("done")
            if not again:
                return code
            code = result

    def _for(self, *, active: bool) -> int:
        self.at += 1
        name = self._keyword()
        self.at += 1
        self._expect("in")
        items: list[str] = []
        while isinstance(token := self.tokens[self.at], Word):
            text = token.expanded(self.machine.env)
            items += [text] if token.quoted else text.split()
            self.at += 1
        self._skip(";", "\n")
        self._expect("do")
        start, code = self.at, 0
        for item in items if active and items else [""]:
            self.at = start
            self.machine.env[name] = item
            code = self._list(active=active and bool(items))
        self._expect("done")
        return code

    def _if(self, *, active: bool) -> int:
        self.at += 1
        holds = self._list(active=active) == 0
        self._expect("then")
        code = self._list(active=active and holds)
        if self._keyword() == "elif":
            other = self._if(active=active and not holds)
            return code if holds else other
        if self._keyword() == "else":
            self.at += 1
            other = self._list(active=active and not holds)
            code = code if holds else other
        self._expect("fi")
        return code if active else 0
