"""The only builder of expressions: libcst nodes in, text out, the user's trivia kept to the byte.

Parentheses are added exactly where the new context binds tighter than the expression does; libcst's own substitution
adds none, which prints a different program half of the time.
"""

from __future__ import annotations

from collections.abc import Callable

import libcst as cst

_ATOMS = (
    cst.Name,
    cst.Attribute,
    cst.Subscript,
    cst.Call,
    cst.List,
    cst.Dict,
    cst.Set,
    cst.SimpleString,
    cst.FormattedString,
)

# Expressions that must be parenthesised even as an argument of a call.
_NEVER_BARE = (cst.NamedExpr, cst.GeneratorExp, cst.Yield)

_EMPTY = cst.Module([])


def parsed(text: str) -> cst.BaseExpression:
    """The libcst tree of an expression; raises libcst.ParserSyntaxError."""
    return cst.parse_expression(text)


def printed(node: cst.CSTNode) -> str:
    return _EMPTY.code_for_node(node)


def grouped(node: cst.BaseExpression) -> cst.BaseExpression:
    """`node` as an operand of anything: in parentheses unless it is an atom or has its own."""
    if isinstance(node, _ATOMS) or node.lpar:
        return node
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def as_argument(node: cst.BaseExpression) -> cst.BaseExpression:
    """`node` as one argument of a call, where only few expressions need parentheses."""
    return grouped(node) if isinstance(node, _NEVER_BARE) else node


def substitute(template: str, name: str, value: cst.BaseExpression) -> cst.BaseExpression:
    """`template` (an expression) with `value` for each use of `name`."""
    replaced = parsed(template).visit(_Substitution(name, value))
    assert isinstance(replaced, cst.BaseExpression)
    return replaced


def replace_argument(
    call: str, position: int | str, rebuild: Callable[[cst.BaseExpression], cst.BaseExpression]
) -> str:
    """The text of a call whose argument at `position` (an index, or a keyword's name) is rebuilt."""
    node = cst.ensure_type(parsed(call), cst.Call)
    arguments = list(node.args)
    index = position if isinstance(position, int) else _keyword_index(arguments, position)
    argument = arguments[index]
    arguments[index] = argument.with_changes(value=as_argument(rebuild(argument.value)))
    return printed(node.with_changes(args=arguments))


def replace_pointer(call: str, position: int | str | None, pointer: str) -> str:
    """The text of a call with another pointer: as the argument at `position`, or (None) as what the method is of."""
    if position is not None:
        return replace_argument(call, position, lambda _: parsed(pointer))
    node = cst.ensure_type(parsed(call), cst.Call)
    function = cst.ensure_type(node.func, cst.Attribute)
    return printed(node.with_changes(func=function.with_changes(value=grouped(parsed(pointer)))))


def _keyword_index(arguments: list[cst.Arg], name: str) -> int:
    return next(i for i, a in enumerate(arguments) if a.keyword is not None and a.keyword.value == name)


class _Substitution(cst.CSTTransformer):
    def __init__(self, name: str, value: cst.BaseExpression) -> None:
        super().__init__()
        self._name = name
        self._value = value

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        return grouped(self._value) if original_node.value == self._name else updated_node

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        value = original_node.value
        if isinstance(value, cst.Name) and value.value == self._name and not original_node.star:
            updated_node = updated_node.with_changes(value=as_argument(self._value))
        return updated_node.with_changes(keyword=original_node.keyword)
