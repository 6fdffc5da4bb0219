"""docs/messages.md has an entry for each line that lonc can log, and none for others.

The source is read, not run. A part of a line that changes is a placeholder on the page: `<host>`.
Where the text of a line comes from elsewhere, ELSEWHERE says from where.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lonc.broker.complaints import _KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "messages.md"
SOURCE = ROOT / "lonc"

# The methods of a log that write a line, and which argument is its text.
LOG_TEXT = {"log": 1, "trace": 0, "debug": 0, "replace": 1}
# The methods of an exchange that end a request or a connection, and which argument says why.
REASON = {"lose": 1, "finish": 2, "decline": 1, "fail_queue": 0}

SEVERITIES = ("CRITICAL", "WARNING", "SUCCESS", "INFO")

# (file, severity, what it passes on): (file, the function in which the text is written).
ELSEWHERE = {
    ("daemon/daemon.py", "WARNING", "str(error)"): ("net/listening.py", "remove_unix_listener"),
    ("daemon/daemon.py", "WARNING", "line"): ("daemon/daemon.py", "needs_restart"),
    ("daemon/processes.py", "CRITICAL", "_how_it_died(pid, status)"): (
        "daemon/processes.py",
        "_how_it_died",
    ),
    ("daemon/log.py", "CRITICAL", "text"): ("daemon/log.py", "write"),
}
# Where a line is put together out of texts that are found where they are written.
ASSEMBLED = {
    ("broker/complaints.py", "note"),
    ("daemon/log.py", "trace"),
    ("daemon/log.py", "debug"),
}


def template(node: ast.expr) -> list[str]:
    """Return the texts that an expression may be, `<>` for each changing part; [] if unknown."""
    if isinstance(node, ast.IfExp):
        return template(node.body) + template(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "<>" for part in node.values]
        return [shortened("".join(parts))]
    return []


def shortened(text: str) -> str:
    """The text with a bare `<>` for each placeholder, or several side by side."""
    return re.sub(r"(<[\w, -]*>)+", "<>", text)


def modules():
    """Yield (file, tree) of each module whose lines go to the log."""
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        # The built-in peer has a log of its own: its standard error stream.
        if not file.startswith("lond/") and file != "cli/lond.py":
            yield file, ast.parse(path.read_text())


def calls(methods: dict[str, int]):
    """Yield (file, function it is in, method, severity or "", text) of all calls of `methods`."""
    for file, tree in modules():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                method = node.func.attr
                place = methods.get(method, len(node.args))
                if place >= len(node.args):
                    continue
                first = getattr(node.args[0], "value", "")
                severity = first if first in SEVERITIES else ""
                if method != "replace" or severity:
                    yield file, function.name, method, severity, node.args[place]


def written_in(file: str, name: str) -> list[str]:
    """Return the texts of several words in a function."""
    found: list[str] = []

    def look(node: ast.AST) -> None:
        texts = template(node) if isinstance(node, ast.expr) else []
        found.extend(text for text in texts if len(text.split()) > 2)
        if not texts:
            for child in ast.iter_child_nodes(node):
                look(child)

    for node in ast.walk(ast.parse((SOURCE / file).read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            for statement in node.body[1:] if ast.get_docstring(node) else node.body:
                look(statement)
    return found


def log_lines() -> list[tuple[str, str, str]]:
    """Return (file, severity or "", text) of all lines that can be logged."""
    lines = [
        ("broker/complaints.py", severity, shortened(re.sub(r"\{\w+\}", "<>", text)))
        for severity, _, text in _KINDS.values()
    ]
    for file, function, method, severity, node in calls(LOG_TEXT):
        if (file, function) in ASSEMBLED:
            continue
        expression = ast.unparse(node)
        texts = template(node)
        if (file, severity, expression) in ELSEWHERE:
            texts = written_in(*ELSEWHERE[file, severity, expression])
        if not texts:
            raise AssertionError(f"lonc/{file} logs {expression}: where is that written?")
        if method == "trace":
            severity = "CRITICAL"
            texts = [f"{text}: <> at <>" for text in texts]
        lines += [(file, severity, text) for text in texts]
    return sorted(set(lines))


def reasons() -> set[str]:
    """Return the texts that say why a request or a connection failed."""
    return {text for *_, node in calls(REASON) for text in template(node)}


def entries() -> dict[str, str]:
    """Return the page's headings for lines, and the word that begins the text below each."""
    found = re.findall(r"^### `(.+)`\n\n(\w+)", PAGE.read_text(), re.MULTILINE)
    return {shortened(text): word for text, word in found}


def rows() -> set[str]:
    """Return the first cells of the page's tables."""
    return {shortened(text) for text in re.findall(r"^\| `(.+?)` \|", PAGE.read_text(), re.M)}


LINES = log_lines()


def test_the_source_has_log_lines():
    assert len(LINES) > 30
    assert ("broker/broker.py", "WARNING", "lost a connection to <>: <>") in LINES


@pytest.mark.parametrize(("file", "severity", "text"), LINES)
def test_each_log_line_has_an_entry(file, severity, text):
    found = entries()
    assert text in found, f"docs/messages.md says nothing about this line of lonc/{file}"
    assert not severity or found[text] == severity


def test_each_entry_is_a_log_line():
    assert not set(entries()) - {text for _, _, text in LINES}


def test_each_reason_has_a_row():
    assert "the peer closed the connection" in reasons()
    assert not reasons() - rows()


def test_each_place_that_passes_texts_on_is_still_there():
    found = list(calls(LOG_TEXT))
    passed_on = {(file, severity, ast.unparse(node)) for file, _, _, severity, node in found}
    assert not ELSEWHERE.keys() - passed_on
    assert not ASSEMBLED - {(file, function) for file, function, *_ in found}
