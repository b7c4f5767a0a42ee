"""The mutants of a module: each takes one safety rule away, by an edit of its syntax tree.

Only what weakens a rule is tried, not all arithmetic: a refusal that is not raised, a guard that never holds, a clause
that is missing, a bound that is moved, a limit that is lifted, a list of refusals that is empty, a call left out. A
guard that holds the other way round, or `and` for `or`, would be seen where one of these is, and is not tried as well.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

Function = ast.FunctionDef | ast.AsyncFunctionDef
BOUNDS: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
LOWER = {"WORKLOADS": "FILES", "SERVICE": "FILES", "FILES": "NOTHING"}
NO_GUARDS = {
    "on_wait",
    "on_result",
    "hear",
    "append",
    "extend",
    "add",
    "sleep",
    "setdefault",
    "update",
    "warning",
    "print",
    "call_soon",
}
NO_RULES = {"_DRIFT", "_SPECIAL", "VERBS", "USUAL", "WARNINGS", "APT", "TARGETS"}  # tables whose rows forbid nothing
LONGEST = 90  # characters of a mutant's text


@dataclass(frozen=True, slots=True)
class _Edit:
    kind: str
    node: ast.AST
    make: Callable[[ast.AST], ast.AST]  # gets a copy of the node


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: where it is, and what it does."""

    where: str  # the function's or class's qualified name
    kind: str
    text: str  # the source that is edited
    lines: range  # of the statement around it
    module: ast.Module
    edit: _Edit | None = None
    name: str = ""  # of the attribute of the class (or of the module) that is edited, where no function is
    value: ast.expr | None = None  # what it is then

    @property
    def id(self) -> str:
        """What it is called in the results: without line numbers, which every edit of the file would change."""
        return f"{self.where}: {self.kind}: {self.text}"

    @property
    def tree(self) -> ast.Module:
        """The module's tree with the edit of a function made."""
        return _with(self.module, self.edit) if self.edit else self.module


def mutants(source: str) -> list[Mutant]:
    """Return the mutants of a module's source, in the order of its lines."""
    tree = ast.parse(source)
    found = _of_values(tree, source)
    for where, statement, edit in _places(tree.body, ""):
        text = " ".join((ast.get_source_segment(source, edit.node) or "").split())
        found.append(Mutant(where, edit.kind, _short(text), _header(statement), tree, edit))
    return _numbered(found)


def _of_values(tree: ast.Module, source: str) -> list[Mutant]:
    """Return the mutants of what steps declare as their impact, and of the module's tables, each without one row."""
    found = []
    for one in ast.walk(tree):
        if isinstance(one, ast.ClassDef):
            lines = range(one.lineno, (one.end_lineno or one.lineno) + 1)
            for line in one.body:
                value = line.value if isinstance(line, ast.AnnAssign) else None
                named = isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "impact"
                if named and isinstance(value, ast.Attribute) and value.attr in LOWER:
                    lower = ast.fix_missing_locations(ast.Attribute(value.value, LOWER[value.attr], ast.Load()))
                    found.append(
                        Mutant(one.name, "impact lowered", ast.unparse(value), lines, tree, None, "impact", lower)
                    )
    for line in tree.body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        table = getattr(line, "value", None)
        if isinstance(target, ast.Name) and isinstance(table, ast.Tuple) and target.id not in NO_RULES:
            for at, row in enumerate(table.elts):
                if isinstance(row, ast.Constant) and not isinstance(row.value, str):
                    continue
                fewer = ast.fix_missing_locations(ast.Tuple(table.elts[:at] + table.elts[at + 1 :], ast.Load()))
                text = " ".join((ast.get_source_segment(source, row) or "").split())
                found.append(
                    Mutant(target.id, "row dropped", _short(text), range(sys.maxsize), tree, None, target.id, fewer)
                )
    return found


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _numbered(found: list[Mutant]) -> list[Mutant]:
    """Return the mutants with a number at those whose id was there before."""
    counts: dict[str, int] = {}
    numbered = []
    for one in found:
        count = counts[one.id] = counts.get(one.id, 0) + 1
        more = f" #{count}" if count > 1 else ""
        numbered.append(replace(one, text=one.text + more))
    return numbered


def _header(statement: ast.stmt) -> range:
    """Return the lines of a statement, of a compound one those before its body."""
    body = getattr(statement, "body", None)
    last = body[0].lineno if body else (statement.end_lineno or statement.lineno) + 1
    return range(statement.lineno, max(last, statement.lineno + 1))


def _with(tree: ast.Module, edit: _Edit) -> ast.Module:
    """Return a copy of the tree with the edit made; the tree itself stays."""

    class Editor(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if getattr(node, "marked", False):
                node.marked = False  # type: ignore[attr-defined]
                return ast.copy_location(edit.make(node), node)
            return self.generic_visit(node)

    edit.node.marked = True  # type: ignore[attr-defined]
    try:
        copied = copy.deepcopy(tree)
    finally:
        edit.node.marked = False  # type: ignore[attr-defined]
    return ast.fix_missing_locations(Editor().visit(copied))


def _places(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt, _Edit]]:
    """Yield each edit with the name of the outermost function around it and the statement that it is in."""
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            name = f"{prefix}{statement.name}"
            yield from _places(statement.body, f"{name}.")
        elif isinstance(statement, Function):
            for line, edit in _in_function(statement):
                yield f"{prefix}{statement.name}", line, edit


def _in_function(function: Function) -> Iterator[tuple[ast.stmt, _Edit]]:
    for statement in ast.walk(function):
        if not isinstance(statement, ast.stmt) or statement is function:
            continue
        if isinstance(statement, Function):
            continue  # its own statements are walked too
        for edit in _of_statement(statement, function):
            yield statement, edit
        for node in _expressions(statement):
            for edit in _of_expression(node):
                yield statement, edit


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the expressions of a statement, not those of the statements in its body, nor those within texts."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop(0)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt | ast.excepthandler | ast.match_case | ast.JoinedStr):
                yield child
                todo.append(child)


def _of_statement(statement: ast.stmt, function: Function) -> Iterator[_Edit]:
    match statement:
        case ast.Raise():
            yield _Edit("raise dropped", statement, _off)
        case ast.Expr(value=ast.Yield()):
            yield _Edit("refusal not reported", statement, _off)
        case ast.Expr(value=ast.Await(value=ast.Call(func=called)) | ast.Call(func=called)):
            if ast.unparse(called).rpartition(".")[2] not in NO_GUARDS:
                yield _Edit("call dropped", statement, _off)
        case ast.If(test=test, body=[*_, last]) if not isinstance(last, ast.Raise):
            yield _Edit("guard off", test, _never)
        case ast.Return(value=ast.expr() as value):
            yield from _of_answer(value, function)


def _of_answer(value: ast.expr, function: Function) -> Iterator[_Edit]:
    """Yield the edits of what a function returns."""
    returns = ast.unparse(function.returns) if function.returns else ""
    if returns == "bool" and not isinstance(value, ast.Constant | ast.BoolOp):
        yield _Edit("answer negated", value, _not)
    for at, row in enumerate(getattr(value, "elts", ())):
        if isinstance(row, ast.Starred):
            yield _Edit(f"without `{_short(ast.unparse(row))}`", value, _fewer(at))
    if isinstance(value, ast.ListComp) or (isinstance(value, ast.List) and value.elts):
        yield _Edit("list emptied", value, _empty)


def _of_expression(node: ast.AST) -> Iterator[_Edit]:
    match node:
        case ast.BoolOp(values=[*_, last] as values) if not _is_text(last):
            for at, value in enumerate(values):
                yield _Edit(f"without `{_short(ast.unparse(value))}`", node, _without(at))
        case ast.IfExp(test=test, body=body, orelse=other) if not any(map(_is_text, (body, other))):
            yield _Edit("condition negated", test, _not)
        case ast.Compare(ops=[op]) if type(op) in BOUNDS:
            yield _Edit("bound moved", node, _moved)
        case ast.Call(func=ast.Name(id="min" | "max"), args=[_, _, *_] as args):
            for at in range(len(args)):
                yield _Edit(f"only `{_short(ast.unparse(args[at]))}`", node, _argument(at))
        case ast.comprehension(ifs=ifs):
            for test in ifs:
                yield _Edit("filter dropped", test, _always)


def _is_text(node: ast.expr) -> bool:
    """Say whether an expression is the words of a message; what chooses between words decides nothing."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _off(node: ast.AST) -> ast.AST:
    """Return a statement that is never run; its names stay in the function's scope."""
    assert isinstance(node, ast.stmt)
    return ast.If(ast.Constant(value=False), [node], [])


def _never(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.expr)
    return ast.BoolOp(ast.And(), [ast.Constant(value=False), node])


def _always(node: ast.AST) -> ast.AST:
    """Return what is true whatever the expression says; it is evaluated for the names that it binds."""
    assert isinstance(node, ast.expr)
    return ast.BoolOp(ast.Or(), [node, ast.Constant(value=True)])


def _empty(node: ast.AST) -> ast.AST:
    del node
    return ast.List([], ast.Load())


def _fewer(at: int) -> Callable[[ast.AST], ast.AST]:
    def make(node: ast.AST) -> ast.AST:
        assert isinstance(node, ast.List | ast.Tuple)
        return type(node)(node.elts[:at] + node.elts[at + 1 :], ast.Load())

    return make


def _not(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.expr)
    return ast.UnaryOp(ast.Not(), node)


def _without(at: int) -> Callable[[ast.AST], ast.AST]:
    def make(node: ast.AST) -> ast.AST:
        assert isinstance(node, ast.BoolOp)
        left = [value for place, value in enumerate(node.values) if place != at]
        return left[0] if len(left) == 1 else ast.BoolOp(node.op, left)

    return make


def _moved(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.Compare)
    return ast.Compare(node.left, [BOUNDS[type(node.ops[0])]()], node.comparators)


def _argument(at: int) -> Callable[[ast.AST], ast.AST]:
    def make(node: ast.AST) -> ast.AST:
        assert isinstance(node, ast.Call)
        return node.args[at]

    return make
