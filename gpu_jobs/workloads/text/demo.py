"""Real texts without a download: docstrings of Python's standard library.

Every machine that runs this has them. They are (c) Python Software Foundation, under the PSF licence.
"""

import ast
import json
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCSTRINGS = "docstrings.jsonl"
QUESTIONS = "questions.jsonl"
REQUESTS = "requests.jsonl"

_MODULES = (
    "argparse", "bisect", "calendar", "cmd", "code", "codecs", "collections", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "difflib", "email", "enum", "fileinput", "fnmatch", "fractions", "ftplib", "functools",
    "getpass", "gettext", "glob", "gzip", "hashlib", "heapq", "hmac", "html", "http", "imaplib", "inspect", "io",
    "ipaddress", "json", "linecache", "locale", "logging", "mailbox", "mimetypes", "multiprocessing", "netrc",
    "ntpath", "numbers", "operator", "os", "pathlib", "pickle", "plistlib", "poplib", "posixpath", "pprint", "queue",
    "quopri", "random", "re", "reprlib", "sched", "secrets", "selectors", "shelve", "shlex", "shutil", "signal",
    "smtplib", "socket", "socketserver", "sqlite3", "ssl", "stat", "statistics", "string", "struct", "subprocess",
    "tarfile", "tempfile", "textwrap", "threading", "timeit", "tokenize", "trace", "traceback", "types", "typing",
    "unittest", "urllib", "uuid", "wave", "weakref", "webbrowser", "xml", "zipapp", "zipfile",
)  # fmt: skip
_ASKED = (
    "bisect.bisect_left", "calendar.isleap", "copy.deepcopy", "fnmatch.fnmatch",
    "functools.reduce", "glob.glob", "heapq.merge", "html.escape", "linecache.getline",
    "os.makedirs", "pprint.pprint", "random.Random.shuffle", "secrets.token_hex", "shlex.quote", "shutil.copyfile",
    "shutil.which", "statistics.median", "statistics.mode", "tempfile.mkdtemp",
    "textwrap.shorten", "webbrowser.open",
)  # fmt: skip
_SHORTEST, _LONGEST = 20, 600


def make_demo_texts(folder: Path) -> None:
    """Write three tables into `folder`, unless they exist.

    `docstrings.jsonl` and `questions.jsonl` have columns `id` (a dotted name) and `text` (its docstring);
    `requests.jsonl` has the questions in the OpenAI Batch format.
    """
    if all((folder / name).exists() for name in (DOCSTRINGS, QUESTIONS, REQUESTS)):
        return
    docs = {name: text for module in _MODULES for name, text in _docstrings(module)}
    asked = {name: docs[name] for name in _ASKED if name in docs}
    _write(folder / DOCSTRINGS, [{"id": name, "text": text} for name, text in docs.items()])
    _write(folder / QUESTIONS, [{"id": name, "text": text} for name, text in asked.items()])
    _write(folder / REQUESTS, [_request(name, text) for name, text in asked.items()])


def _request(name: str, text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{name}: {text}\n\nIn one short sentence: what is {name} for?"}]
    body = {"model": "any", "messages": messages, "max_tokens": 40}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{os.urandom(6).hex()}-{path.name}")
    temp.write_text("".join(json.dumps(row) + "\n" for row in rows))
    temp.replace(path)


def _docstrings(module: str) -> Iterator[tuple[str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    path = library / f"{module}.py"
    path = path if path.exists() else library / module / "__init__.py"
    if path.exists():
        yield from _of(module, ast.parse(path.read_text(encoding="utf-8")).body)


def _of(prefix: str, body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            name = f"{prefix}.{node.name}"
            text = ast.get_docstring(node) or ""
            if _SHORTEST <= len(text) <= _LONGEST:
                yield name, text
            if isinstance(node, ast.ClassDef):
                yield from _of(name, node.body)
