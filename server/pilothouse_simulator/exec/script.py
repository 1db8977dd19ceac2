"""The grammar of the shell scripts that a simulated container can run: parses text into a tree.

It is a small part of the POSIX shell, enough for typical scripts of users and probes: words with quotes, variables and
command substitution; `;`, `&`, `&&`, `||`, `|`; redirections to the other stream, to files and from files; `if`, `for`,
`while`, `until`, groups. `shell` runs the tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

_OPERATORS = ("&&", "||", ">>", ">&", "<<", ";", "&", "|", "<", ">", "(", ")", "\n")
_NAME = re.compile(r"[A-Za-z_]\w*")
_RESERVED = frozenset({"then", "else", "elif", "fi", "do", "done", "}"})


class SyntaxFailure(Exception):
    """The script is invalid or uses unsupported syntax."""


@dataclass(frozen=True)
class WordPart:
    """A piece of a word: literal `text`, a `variable` by name, or a `command` that stands for its output.

    The expansion of a `quoted` part is not split at blanks.
    """

    kind: Literal["text", "variable", "command"]
    value: str
    quoted: bool


Word = tuple[WordPart, ...]


@dataclass(frozen=True)
class Redirection:
    """`descriptor` 0, 1 or 2; `operator` `<`, `>`, `>>` (`target` a file) or `>&` (`target` a descriptor)."""

    descriptor: int
    operator: str
    target: Word


@dataclass(frozen=True)
class Simple:
    """A command: assignments before it, its words, its redirections."""

    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...]


@dataclass(frozen=True)
class For:
    """`for name in words; do body; done`."""

    name: str
    words: tuple[Word, ...]
    body: ScriptSequence


@dataclass(frozen=True)
class While:
    """`while condition; do body; done`; `until` where `wanted` is False."""

    condition: ScriptSequence
    body: ScriptSequence
    wanted: bool


@dataclass(frozen=True)
class If:
    """`if condition; then body; else otherwise; fi`."""

    condition: ScriptSequence
    body: ScriptSequence
    otherwise: ScriptSequence | None


Command = Simple | For | While | If


@dataclass(frozen=True)
class ScriptPipeline:
    """Commands joined by `|`. `negated` if `!` precedes them."""

    commands: tuple[Command | ScriptSequence, ...]
    negated: bool = False


@dataclass(frozen=True)
class ScriptItem:
    """One step of a sequence. `joined` is the operator before it (`;`, `&&`, `||`)."""

    joined: str
    pipeline: ScriptPipeline
    background: bool


@dataclass(frozen=True)
class ScriptSequence:
    """Steps that run one after the other."""

    items: tuple[ScriptItem, ...] = field(default_factory=tuple)


Token = str | Word


def parse(script: str) -> ScriptSequence:
    """Returns the tree of a script. Raises SyntaxFailure."""
    parser = _Parser(_tokens(script))
    sequence = parser.sequence(frozenset())
    if parser.position < len(parser.tokens):
        raise SyntaxFailure(f"unexpected {parser.describe_next()}")
    return sequence


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        if text[position] in " \t\r":
            position += 1
        elif text.startswith("\\\n", position):
            position += 2
        elif text[position] == "#":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        elif (operator := next((op for op in _OPERATORS if text.startswith(op, position)), None)) is not None:
            tokens.append(operator)
            position += len(operator)
        else:
            word, position = _WordReader(text, position).read()
            tokens.append(word)
    return tokens


class _WordReader:
    """Reads one word, with its quoted parts and expansions, up to a blank or an operator."""

    def __init__(self, text: str, position: int) -> None:
        self._text, self._position = text, position
        self._parts: list[WordPart] = []
        self._plain = self._quote = ""

    def read(self) -> tuple[Word, int]:
        """Returns the word and the position after it. Raises SyntaxFailure for an unterminated quote."""
        while self._position < len(self._text) and not self._at_end_of_word():
            self._read_one(self._text[self._position])
        if self._quote:
            raise SyntaxFailure("unterminated quoted string")
        self._flush()
        return tuple(self._parts), self._position

    def _at_end_of_word(self) -> bool:
        if self._quote:
            return False
        return self._text[self._position] in " \t\r" or any(
            self._text.startswith(operator, self._position) for operator in _OPERATORS
        )

    def _read_one(self, character: str) -> None:
        has_more = self._position + 1 < len(self._text)
        if character == self._quote or (not self._quote and character in "'\""):
            self._turn_quote(character)
        elif self._quote != "'" and character == "\\" and has_more:
            self._escape(self._text[self._position + 1])
        elif self._quote != "'" and character == "$" and has_more:
            self._flush()
            part, self._position = _expansion(self._text, self._position, quoted=bool(self._quote))
            self._parts.append(part)
        else:
            self._plain += character
            self._position += 1

    def _turn_quote(self, character: str) -> None:
        self._flush()
        if not self._quote:
            # Empty quotes are a word too.
            self._parts.append(WordPart("text", "", True))
        self._quote = "" if self._quote else character
        self._position += 1

    def _escape(self, escaped: str) -> None:
        if self._quote and escaped not in '"\\$`':
            self._plain += "\\"
        self._flush()
        self._parts.append(WordPart("text", escaped, True))
        self._position += 2

    def _flush(self) -> None:
        if self._plain:
            self._parts.append(WordPart("text", self._plain, bool(self._quote)))
        self._plain = ""


def _expansion(text: str, position: int, *, quoted: bool) -> tuple[WordPart, int]:
    following = text[position + 1]
    if following == "(":
        depth, end = 0, position + 1
        while end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                return WordPart("command", text[position + 2 : end], quoted), end + 1
            end += 1
        raise SyntaxFailure("unterminated command substitution")
    if following == "{":
        end = text.find("}", position)
        if end < 0:
            raise SyntaxFailure("unterminated variable")
        return WordPart("variable", text[position + 2 : end], quoted), end + 1
    if following in "?$#0123456789":
        return WordPart("variable", following, quoted), position + 2
    match = _NAME.match(text, position + 1)
    if match is None:
        return WordPart("text", "$", True), position + 1
    return WordPart("variable", match[0], quoted), match.end()


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0

    def describe_next(self) -> str:
        """Returns the current token, for messages."""
        if self.position >= len(self.tokens):
            return "end of file"
        token = self.tokens[self.position]
        text = token if isinstance(token, str) else "".join(part.value for part in token)
        return '"newline"' if text == "\n" else f'"{text}"'

    def _keyword(self) -> str:
        """Returns the current operator or unquoted word; NUL for a quoted or composed word, empty at the end."""
        if self.position >= len(self.tokens):
            return ""
        token = self.tokens[self.position]
        if isinstance(token, str):
            return token
        plain = len(token) == 1 and token[0].kind == "text" and not token[0].quoted
        return token[0].value if plain else "\0"

    def _expect(self, wanted: str) -> None:
        self._blank_lines()
        if self._keyword() != wanted:
            raise SyntaxFailure(f'unexpected {self.describe_next()} (expecting "{wanted}")')
        self.position += 1

    def _blank_lines(self) -> None:
        while self._keyword() in ("\n", ";"):
            self.position += 1

    def sequence(self, ends: frozenset[str]) -> ScriptSequence:
        """Parses steps until one of `ends` or the end of the script."""
        items: list[ScriptItem] = []
        joined = ";"
        self._blank_lines()
        while self.position < len(self.tokens) and self._keyword() not in ends:
            pipeline = self._pipeline()
            operator = self._keyword()
            items.append(ScriptItem(joined, pipeline, operator == "&"))
            joined = ";"
            if operator in ("&&", "||"):
                joined = operator
                self.position += 1
                while self._keyword() == "\n":
                    self.position += 1
            elif operator in (";", "\n", "&"):
                self.position += 1
                self._blank_lines()
            elif self.position < len(self.tokens) and operator not in ends:
                raise SyntaxFailure(f"unexpected {self.describe_next()}")
        if joined != ";":
            raise SyntaxFailure(f"unexpected {self.describe_next()}")
        return ScriptSequence(tuple(items))

    def _pipeline(self) -> ScriptPipeline:
        negated = self._keyword() == "!"
        if negated:
            self.position += 1
        commands = [self._command()]
        while self._keyword() == "|":
            self.position += 1
            commands.append(self._command())
        return ScriptPipeline(tuple(commands), negated)

    def _command(self) -> Command | ScriptSequence:
        keyword = self._keyword()
        if keyword in ("{", "("):
            self.position += 1
            end = "}" if keyword == "{" else ")"
            body = self.sequence(frozenset({end}))
            self._expect(end)
            return body
        if keyword == "for":
            return self._for()
        if keyword in ("while", "until"):
            self.position += 1
            condition = self.sequence(frozenset({"do"}))
            return While(condition, self._body(), keyword == "while")
        if keyword == "if":
            return self._if()
        if keyword in _RESERVED:
            raise SyntaxFailure(f"unexpected {self.describe_next()}")
        return self._simple()

    def _body(self) -> ScriptSequence:
        self._expect("do")
        body = self.sequence(frozenset({"done"}))
        self._expect("done")
        return body

    def _for(self) -> For:
        self.position += 1
        name = self._keyword()
        self.position += 1
        self._expect("in")
        words: list[Word] = []
        while self.position < len(self.tokens) and not isinstance(token := self.tokens[self.position], str):
            words.append(token)
            self.position += 1
        return For(name, tuple(words), self._body())

    def _if(self) -> If:
        self.position += 1
        condition = self.sequence(frozenset({"then"}))
        self._expect("then")
        body = self.sequence(frozenset({"else", "elif", "fi"}))
        if self._keyword() == "elif":
            return If(
                condition, body, ScriptSequence((ScriptItem(";", ScriptPipeline((self._if(),)), False),))
            )
        otherwise = None
        if self._keyword() == "else":
            self.position += 1
            otherwise = self.sequence(frozenset({"fi"}))
        self._expect("fi")
        return If(condition, body, otherwise)

    def _simple(self) -> Simple:
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirections: list[Redirection] = []
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if isinstance(token, str):
                if token not in (">", ">>", ">&", "<"):
                    break
                descriptor = self._descriptor(words, token)
                self.position += 1
                target = self.tokens[self.position] if self.position < len(self.tokens) else ""
                if isinstance(target, str):
                    raise SyntaxFailure(f"unexpected {self.describe_next()}")
                redirections.append(Redirection(descriptor, token, target))
            elif not words and (assignment := _assignment(token)) is not None:
                assignments.append(assignment)
            else:
                words.append(token)
            self.position += 1
        if not (assignments or words or redirections):
            raise SyntaxFailure(f"unexpected {self.describe_next()}")
        return Simple(tuple(assignments), tuple(words), tuple(redirections))

    @staticmethod
    def _descriptor(words: list[Word], operator: str) -> int:
        """Returns the descriptor before the operator. `echo 2 > file`, with a blank, is parsed the same way."""
        if (
            words
            and len(words[-1]) == 1
            and words[-1][0] in (WordPart("text", "1", False), WordPart("text", "2", False))
        ):
            return int(words.pop()[0].value)
        return 0 if operator == "<" else 1


def _assignment(word: Word) -> tuple[str, Word] | None:
    if not word or word[0].kind != "text" or word[0].quoted:
        return None
    name, equals, rest = word[0].value.partition("=")
    if not equals or not _NAME.fullmatch(name):
        return None
    return name, (WordPart("text", rest, False), *word[1:])
