"""What an op reads beside its x: the loads at each store or load it is put into, and the parameters and pointers they need.

    c_ptrs = c_ptr + offs_cm[:, None] * stride_cm + offs_cn[None, :] * stride_cn
    residual_ptrs = residual_ptr + offs_cm[:, None] * stride_cm + offs_cn[None, :] * stride_cn      # mirrored
    ...
    bias = tl.load(bias_ptr + offs_cn[None, :], mask=offs_cn[None, :] < N)
    residual = tl.load(residual_ptrs, mask=c_mask)
    tl.store(c_ptrs, c + bias + residual, mask=c_mask)

An operand of the output's own shape is read through the store's own pointer, with the output's name replaced on the way
from the parameter to the store. One value a row or a column is read at the index that the store has in that direction.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kernel_rewrite.analysis import Analysis
from kernel_rewrite.diagnostics import Diagnostic, FusionRefused, Label
from kernel_rewrite.model import Assumption, Edit, Function, Operand, OperandKind, Span
from kernel_rewrite.pointwise.graph import key_of
from kernel_rewrite.rewrite.additions import AddedKeywords, AddedParameters, AddedStatements, Addition
from kernel_rewrite.rewrite.brackets import call_bracket, definition_bracket, inserted, span_between
from kernel_rewrite.rewrite.loads import LoadPlan, LoadSite
from kernel_rewrite.rewrite.parameters import NewParameter
from kernel_rewrite.rewrite.placement import indent_of, stands_alone
from kernel_rewrite.rewrite.spelling import free
from kernel_rewrite.rewrite.stores import StorePlan, StoreSite
from kernel_rewrite.source.accesses import HelperCall
from kernel_rewrite.source.addresses import NotAffine, Reader, StoreAddress, is_widened
from kernel_rewrite.source.blocks import Block, block, literal_dimensions
from kernel_rewrite.source.definitions import Definitions
from kernel_rewrite.source.directions import Directions, output_directions
from kernel_rewrite.source.expressions import grouped, parsed, printed
from kernel_rewrite.source.files import SourceFile, newline_of
from kernel_rewrite.source.layouts import shared_layout
from kernel_rewrite.source.pointer_flow import bound_arguments
from kernel_rewrite.source.syntax import expansions
from kernel_rewrite.source.values import argument_position, is_assigned

Site = StoreSite | LoadSite
"""A call that an op is put into."""

WRITE_THE_INDEX = "write the index in the kernel's own names, for example `{name}[{example}]`"


@dataclass(frozen=True, slots=True)
class OperandEdits:
    """The edits of one function for the operands of one buffer, and what they add to its syntax tree."""

    edits: tuple[Edit, ...] = ()
    additions: tuple[Addition | AddedStatements, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptAt:
    """How one store keeps its original value: through `pointer`, which stands at `position` in the call (None: it is what
    the method is of), before `statement`; an expression is computed once, into `name`."""

    pointer: str
    position: int | str | None
    statement: ast.stmt
    name: str


@dataclass(slots=True, eq=False)
class _Place:
    """One function that a pointer of the buffer comes through, with the names it has for each operand."""

    function: Function
    file: SourceFile
    definitions: Definitions
    reader: Reader
    bases: tuple[str, ...]  # the parameters that point into the buffer
    parameters: Mapping[str, str]  # operand -> parameter
    strides: Mapping[str, tuple[str, ...]]  # operand -> parameters of its own strides
    mirrors: dict[tuple[str, str], str] = field(default_factory=dict)  # (operand, pointer) -> name
    indices: dict[tuple[int, int], str] = field(default_factory=dict)  # (store, dimension of its block) -> name
    statements: dict[int, dict[str, tuple[str, ast.stmt]]] = field(default_factory=dict)  # mirrored, by their original
    before: dict[int, list[str]] = field(default_factory=dict)  # loads, by the store's statement
    anchors: dict[int, ast.stmt] = field(default_factory=dict)


class OperandWriter:
    """Writes the operands of one buffer, and the pointers by which its stores keep their original value (`kept`). `beside`
    has the texts of the operands that are stored to other outputs, by store and name. Raises FusionRefused (KR301 to KR304,
    KR306) for what cannot be derived."""

    def __init__(
        self,
        analysis: Analysis,
        plan: StorePlan | LoadPlan,
        operands: Sequence[Operand],
        parameters: Mapping[str, NewParameter],
        tl: str,
        taken: Iterable[str],
        kept: NewParameter | None = None,
        beside: Mapping[tuple[int, str], str] = {},
    ) -> None:
        self._analysis = analysis
        self._plan = plan
        self._operands = tuple(operand for operand in operands if not operand.is_stored)
        self._stored = tuple(operand for operand in operands if operand.is_stored)
        self._beside = beside
        self._kept = Operand(kept.operand, OperandKind.TILE) if kept is not None else None
        self._every = (*self._operands, self._kept) if self._kept is not None else self._operands
        self._parameters = {**parameters, kept.operand: kept} if kept is not None else parameters
        self._tl = tl
        self._taken = set(taken)
        is_store = isinstance(plan, StorePlan)
        self._access, self._does, self._done = _STORE_WORDS if is_store else _LOAD_WORDS
        kernel = analysis.closure.kernel.ref
        reached = {kernel, *(c.callee for c in plan.path), *(site.call.function for site in plan.sites)}
        self._clipped = False  # by the bounds of a block
        self._places = {f.ref: self._place(f) for f in analysis.closure.functions if f.ref in reached}
        self.directions = self._directions()
        self._texts = {id(site.call.node): dict(self._loaded(site)) for site in plan.sites}
        keeping = [site for site in plan.sites if isinstance(site, StoreSite)] if self._kept is not None else []
        self._kept_at = {id(site.call.node): self._mirrored_store(site) for site in keeping}
        for _ in plan.path:  # what an inner helper takes, an outer one must be given
            for call in plan.path:
                list(self._passed(call, self._places[call.function]))

    # ------------------------------------------------------------------------------------------------------- what is used

    def texts(self, site: Site) -> Mapping[str, str]:
        """What stands for each operand in the stored expression, by `pointwise.graph.key_of`."""
        return self._texts[id(site.call.node)]

    def kept_at(self, site: Site) -> KeptAt | None:
        """How a store keeps its original value; None where it is not kept."""
        return self._kept_at.get(id(site.call.node))

    def edits(self, function: Function) -> OperandEdits:
        """The new statements, helper parameters and helper arguments of `function`."""
        place = self._places.get(function.ref)
        if place is None or not (self._every or self._stored):
            return OperandEdits()
        parts = [self._statement_edits(place), self._call_edits(place)]
        if function.ref != self._analysis.closure.kernel.ref:
            parts.append(self._parameter_edits(place))
        return OperandEdits(
            tuple(edit for part in parts for edit in part.edits), tuple(a for part in parts for a in part.additions)
        )

    @property
    def names(self) -> frozenset[str]:
        """The names that were taken."""
        return frozenset(self._taken)

    @property
    def strides(self) -> Mapping[OperandKind, tuple[str, ...] | None]:
        """The stride of the direction that an operand of a kind follows, as the arguments whose product it is (none: 1)."""
        if not isinstance(self.directions, Directions):
            return {}
        return {OperandKind.ROW: self.directions.columns, OperandKind.COLUMN: self.directions.rows}

    @property
    def tile_strides(self) -> tuple[tuple[tuple[str, ...], int], ...] | None:
        """The strides of all dimensions of the buffer that its address has, outermost first, each with its dimension; None
        where they cannot be told."""
        known = self.directions
        if isinstance(known, str) or known.rows is None or known.outer is None:
            return None
        return (*known.outer, (known.rows, -2), (known.columns, -1))

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What the operands take from the caller: their types and strides, and what was taken for a row and a column where no
        launch of the file shows it."""
        return (*self._about_types(), *self._about_strides(), *self._about_directions(), *self._about_blocks())

    def _about_types(self) -> Iterator[Assumption]:
        same = dict.fromkeys(o.name for o in self._operands if not o.dtype and not o.is_number)
        if same:
            verb = "has" if len(same) == 1 else "have"
            statement = f"`{'`, `'.join(same)}` {verb} the element type of `{self._plan.buffer}`"
            yield Assumption("operand-types", statement)

    def _about_strides(self) -> Iterator[Assumption]:
        tiles = [o.name for o in self._operands if _is_mirrored(o)]
        others = [o.name for o in self._operands if o.kind in (OperandKind.ROW, OperandKind.COLUMN) and not o.strided]
        strided = [o.name for o in self._operands if o.kind is OperandKind.TILE and o.strided]
        if tiles:
            statement = (
                f"`{'`, `'.join(tiles)}` lies in memory as `{self._plan.buffer}` does, with its shape and strides"
            )
            yield Assumption("operand-strides", statement)
        for operand in self._stored:
            same = f"`{operand.name}` has the element type of `{self._plan.buffer}` and lies in memory as it does"
            yield Assumption("stored-alike", f"{same}, with its shape and strides")
        if strided:
            yield Assumption("operand-shape", f"`{'`, `'.join(strided)}` has the shape of `{self._plan.buffer}`")
        if others:
            verb = "is" if len(others) == 1 else "are"
            yield Assumption("operand-contiguous", f"`{'`, `'.join(others)}` {verb} contiguous")

    def _about_blocks(self) -> Iterator[Assumption]:
        if self._clipped:
            statement = f"no block of `{self._plan.buffer}` starts before the first element of a dimension"
            yield Assumption("operand-blocks", statement)

    def _about_directions(self) -> tuple[Assumption, ...]:
        along = [o.kind for o in self._operands if o.kind in (OperandKind.ROW, OperandKind.COLUMN)]
        if any(o.kind is OperandKind.TILE and o.strided for o in self._operands):
            along += [OperandKind.ROW, OperandKind.COLUMN]
        if not isinstance(self.directions, Directions) or self.directions.certain or not along:
            return ()
        output = self._plan.buffer
        parts = [f"the last dimension of `{output}` has the stride {_product_text(self.directions.columns)}"]
        if self.directions.rows is not None and OperandKind.COLUMN in along:
            parts.append(f"the one before it the stride {_product_text(self.directions.rows)}")
        if any(o.kind is OperandKind.TILE and o.strided for o in self._operands):
            outer = reversed(self.directions.outer or ())
            parts += (f"the one before that the stride {_product_text(strides)}" for strides, _ in outer)
        return (Assumption("operand-layout", ", ".join(parts)),)

    # ------------------------------------------------------------------------------------------------------------ places

    def _place(self, function: Function) -> _Place:
        analysis = self._analysis
        file = analysis.kernel.file if function.ref.file == analysis.kernel.file.path else None
        file = file or analysis.project.file(function.ref.file)
        assert file is not None
        constexprs = analysis.closure.constexpr_parameters(function)
        definitions = Definitions(function.node, constexprs)
        if function.ref == analysis.closure.kernel.ref:
            uniform = {fact.name for fact in analysis.facts if fact.kind == "scalar"}
            bases: tuple[str, ...] = (self._plan.buffer,)
            names = {name: parameter.name for name, parameter in self._parameters.items()}
            strides = {name: tuple(s for s, _ in p.strides) for name, p in self._parameters.items()}
        else:
            bases = tuple(p for p in function.parameters if self._points_into_buffer(p, function))
            uniform = {p for p in function.parameters if self._is_scalar_argument(p, function)}
            own = {node.id for node in ast.walk(function.node) if isinstance(node, ast.Name)} | set(function.parameters)
            names = {name: free(parameter.name, own) for name, parameter in self._parameters.items()}
            strides = {name: tuple(free(s, own) for s, _ in p.strides) for name, p in self._parameters.items()}
        local = frozenset(function.parameters) - uniform - constexprs - set(bases)
        reader = Reader(definitions, lambda node: self._is_base(node, function), uniform, constexprs, local, self._tl)
        return _Place(function, file, definitions, reader, bases, names, strides)

    def _is_base(self, node: ast.Name | ast.Subscript, function: Function) -> bool:
        """Whether a name, or an item of a parameter (`outs[1]`), points into the output, and nowhere else, wherever the
        stores and the calls on the way use it."""
        if isinstance(node, ast.Subscript):
            if function.ref != self._analysis.closure.kernel.ref or not isinstance(node.value, ast.Name):
                return False
            return ast.unparse(node) == self._plan.buffer and not is_assigned(node.value.id, function)
        if f"{node.id}[" in self._plan.buffer and node.id in function.parameters:
            return False
        own = function.ref != self._analysis.closure.kernel.ref and node.id in function.parameters
        if own and not is_assigned(node.id, function):  # other calls of a helper are not those of its copy
            return self._points_into_buffer(node.id, function)
        calls = [s.call.node for s in self._plan.sites if s.call.function == function.ref]
        calls += [c.node for c in self._plan.path if c.function == function.ref]
        roots = [self._buffers_of(node, call, function) for call in calls]
        # `p = outs[1] + i`: which item that is, the compiler shows
        whole = {self._plan.buffer, self._plan.buffer.partition("[")[0]}
        return any(roots) and all(r <= whole for r in roots)

    def _pointers_in(self, node: ast.AST, function: Function, name: str = "") -> Iterator[ast.Name | ast.Subscript]:
        """What points into the output in an expression or a statement, and `name` itself."""
        if isinstance(node, (ast.Name, ast.Subscript)) and (_spelled(node) == name or self._is_base(node, function)):
            yield node
            return
        for child in ast.iter_child_nodes(node):
            yield from self._pointers_in(child, function, name)

    def _buffers_of(self, node: ast.expr, call: ast.Call, function: Function) -> frozenset[str]:
        """The buffers that an expression may point into; it may be made of scalar arguments too."""
        scalars = {fact.name for fact in self._analysis.facts if fact.kind == "scalar" or _is_of_numbers(fact.type)}
        return self._analysis.flow.roots(node, call, function) - scalars

    def _points_into_buffer(self, parameter: str, helper: Function) -> bool:
        arguments = list(self._arguments(parameter, helper))
        roots = [self._buffers_of(argument, call.node, caller) for call, caller, argument in arguments]
        return bool(roots) and all(r == {self._plan.buffer} for r in roots)

    def _is_scalar_argument(self, parameter: str, helper: Function, depth: int = 4) -> bool:
        """Whether every call on the way passes a scalar argument of the kernel."""
        arguments = list(self._arguments(parameter, helper))
        return bool(arguments) and all(self._is_scalar(a, caller, depth) for _, caller, a in arguments)

    def _is_scalar(self, argument: ast.expr, caller: Function, depth: int) -> bool:
        if not isinstance(argument, ast.Name) or not depth:
            return False
        if caller.ref == self._analysis.closure.kernel.ref:
            return any(fact.name == argument.id and fact.kind == "scalar" for fact in self._analysis.facts)
        return argument.id in caller.parameters and self._is_scalar_argument(argument.id, caller, depth - 1)

    def _arguments(self, parameter: str, helper: Function) -> Iterator[tuple[HelperCall, Function, ast.expr]]:
        """(call, function it stands in, expression) of what the calls on the way pass for `parameter`."""
        for call in self._plan.path:
            caller = self._analysis.closure.function(call.function)
            if call.callee == helper.ref and caller is not None:
                yield from ((call, caller, a) for name, a in bound_arguments(call.node, helper) if name == parameter)

    # -------------------------------------------------------------------------------------------------------- directions

    def _directions(self) -> Directions | str:
        addresses: list[StoreAddress] = []
        for site in self._plan.sites:
            try:
                addresses.append(self._address(site))
            except NotAffine as reason:
                return f"its address {reason}"
        return output_directions(addresses, shared_layout(self._analysis.launches, self._plan.buffer))

    def _address(self, site: Site) -> StoreAddress:
        """Where a store writes. Raises NotAffine."""
        if _is_block(site):
            return self._block(site).address(self._tl)
        place, pointer = self._places[site.call.function], site.call.pointer(site.form)
        assert pointer is not None
        return place.reader.address(pointer, place.definitions.statement_of(site.call.node))

    def _block(self, site: Site) -> Block:
        """The block that a store through a block pointer or a descriptor writes. Raises NotAffine."""
        place, pointer = self._places[site.call.function], site.call.pointer(site.form)
        assert pointer is not None
        if site.form.through_descriptor:
            offsets, checked = site.call.argument(site.form, "offsets"), None
            if offsets is None:
                raise NotAffine("is that of a scatter")
        else:
            offsets, checked = None, literal_dimensions(site.call.argument(site.form, "boundary_check"))
        statement = place.definitions.statement_of(site.call.node)
        outside = place.bases if self._made_outside else ()
        return block(pointer, offsets, checked, statement, place.definitions, place.reader, outside)

    @property
    def _made_outside(self) -> bool:
        """Whether the launcher makes the descriptor that the buffer is passed as."""
        types = (view.specialization.type_of(self._plan.buffer) for view in self._analysis.views)
        return any(str(type_).startswith("tensordesc") for type_ in types)

    # ------------------------------------------------------------------------------------------------------------- loads

    def _loaded(self, site: Site) -> Iterator[tuple[str, str]]:
        """(key, text) of each operand at one store: a number by its name, the others by the name they are loaded into, or by
        the load itself where the store shares its line."""
        place = self._places[site.call.function]
        statement = place.definitions.statement_of(site.call.node)
        for operand in self._stored:
            yield key_of(operand), self._value_beside(operand, site, place, statement)
        for operand in self._operands:
            parameter = place.parameters[operand.name]
            if operand.is_number:
                yield key_of(operand), parameter
                continue
            load = self._load(operand, parameter, site, place, statement)
            if not stands_alone(place.file, statement):
                yield key_of(operand), load
                continue
            name = free(operand.name if operand.name != parameter else f"{operand.name}_value", self._taken)
            self._taken.add(name)
            place.before.setdefault(id(statement), []).append(f"{name} = {load}")
            place.anchors[id(statement)] = statement
            yield key_of(operand), name

    def _value_beside(self, operand: Operand, site: Site, place: _Place, statement: ast.stmt) -> str:
        """A value that is stored to another output, by its name or by one that it is given."""
        text = self._beside[id(site.call.node), operand.name]
        if text.isidentifier() or not stands_alone(place.file, statement):
            return text
        name = free(operand.name.removesuffix("_ptr") or operand.name, self._taken)
        self._taken.add(name)
        place.before.setdefault(id(statement), []).append(f"{name} = {text}")
        place.anchors[id(statement)] = statement
        return name

    def _load(self, operand: Operand, parameter: str, site: Site, place: _Place, statement: ast.stmt) -> str:
        if operand.kind is OperandKind.SCALAR:
            return f"{self._tl}.load({parameter})"
        if operand.kind is OperandKind.TILE:
            tile = self._strided_tile if operand.strided else self._tile
            return tile(operand, site, place, statement)
        if operand.kind is OperandKind.INDEXED:
            index = self._written_index(operand, site, place, statement)
            dimension = self._block_dimension(operand, index, site, place, statement) if _is_block(site) else None
        else:
            index, dimension = self._derived_index(operand, site, place, statement)
        if _is_block(site):
            conjuncts = () if dimension is None else self._bounds(dimension, index, site, place, statement)
        else:
            conjuncts = self._mask_of(operand, index, site, place, statement)
        text = operand.index or _text(place.file, index)
        if operand.index and not _is_block(site):
            text = self._beside_masks(operand, text, index, conjuncts, site, place, statement)
        offset = text if isinstance(index, ast.Constant) else _grouped(text)
        if operand.strided:
            strides = self.strides.get(operand.kind)
            assert strides is not None
            offset = f"{self._widened(index, strides, site, place)} * {place.strides[operand.name][0]}"
        masks = [_text(place.file, conjunct) for conjunct in conjuncts]
        mask = " & ".join(map(_grouped, masks)) if len(masks) > 1 else "".join(masks)
        return f"{self._tl}.load({parameter} + {offset}" + (f", mask={mask})" if mask else ")")

    def _written_index(self, operand: Operand, site: Site, place: _Place, statement: ast.stmt) -> ast.expr:
        index = ast.parse(operand.index, mode="eval").body
        known = {node.id for node in ast.walk(index) if isinstance(node, ast.Name)}
        unknown = sorted(name for name in known if not self._in_scope(name, place, statement))
        if unknown:
            names = ", ".join(f"`{n}`" for n in sorted(place.definitions.names | set(place.function.parameters)))
            raise _refusal(
                "KR302",
                f"the index of `{operand.name}` uses `{unknown[0]}`, which has no value at this {self._access}",
                site.call.span,
                f"{self._done} in `{place.function.name}`",
                f"use names that are bound there on every way to it: {names}",
            )
        return index

    def _beside_masks(
        self,
        operand: Operand,
        text: str,
        index: ast.expr,
        conjuncts: Sequence[ast.expr],
        site: Site,
        place: _Place,
        statement: ast.stmt,
    ) -> str:
        """An index of one axis, as its mask has it: `offs_n` beside `offs_n[None, :] < N` is `offs_n[None, :]`."""
        axis, rank = place.reader.tile_axis(index, statement)
        if axis is None or rank:
            return text
        try:
            indices = [axis.index for axis in self._address(site).axes]
        except NotAffine:
            indices = []
        same = [i for i in indices if isinstance(i, ast.Subscript) and ast.dump(i.value) == ast.dump(index)]
        spread = [s for c in (*conjuncts, *same) for s in expansions(c)]
        crosswise = next((s for s in spread if s[-1] is not None), None)
        if crosswise is not None:
            written = f"{_grouped(text)}[{', '.join(':' if part is None else 'None' for part in crosswise)}]"
            raise _refusal(
                "KR302",
                f"`{operand.name}[{text}]` would lie along the last axis of what is {self._done}",
                site.call.span,
                f"`{text}` lies along another axis here",
                f"say which axis it lies along: `{operand.name}[{written}]`",
            )
        masks = [s for c in conjuncts for s in expansions(c)]
        return f"{_grouped(text)}[{', '.join(['None'] * (len(masks[0]) - 1))}, :]" if masks else text

    def _in_scope(self, name: str, place: _Place, statement: ast.stmt) -> bool:
        if name in place.function.parameters:
            return True
        bound = place.definitions.bindings(name)
        if bound:
            statements = [binding.statement for binding in bound]
            return any(place.definitions.runs_before(s, statement) or _is_loop_around(s, statement) for s in statements)
        return name in self._analysis.closure.bindings.get(place.function.ref.file, {})

    def _derived_index(
        self, operand: Operand, site: Site, place: _Place, statement: ast.stmt
    ) -> tuple[ast.expr, int | None]:
        """The index that the store has in the operand's direction, and the dimension of its block that it lies along."""
        what = "column" if operand.kind is OperandKind.ROW else "row"
        strides = self.strides.get(operand.kind)
        if strides is None:
            raise self._underivable(operand, what, site, place, statement)
        return self._along(strides, site, place, statement)

    def _underivable(
        self, operand: Operand, what: str, site: Site, place: _Place, statement: ast.stmt
    ) -> FusionRefused:
        return _refusal(
            "KR301",
            f"the {what} of `{self._plan.buffer}` that this {self._does} could not be derived",
            site.call.span,
            f"because {self._why_not(what)}",
            WRITE_THE_INDEX.format(name=operand.name, example=self._example(site, place, statement)),
        )

    def _along(
        self, strides: tuple[str, ...], site: Site, place: _Place, statement: ast.stmt
    ) -> tuple[ast.expr, int | None]:
        if _is_block(site):
            found = self._block(site)
            dimension = found.along(strides)
            if dimension is not None:
                lanes = self._lanes(dimension, found, site, place, statement)
                return found.spread(lanes, dimension), dimension
        axis = self._address(site).along(strides)
        return axis.index if axis is not None else ast.Constant(0), None

    def _widened(self, index: ast.expr, strides: tuple[str, ...], site: Site, place: _Place) -> str:
        """An index to be multiplied by a stride of the operand's own, as wide as its product with the output's is."""
        text = _grouped(_text(place.file, index))
        axis = self._address(site).along(strides)
        narrow = axis is not None and axis.wide and not is_widened(index)
        return f"{text}.to({self._tl}.int64)" if narrow else text

    def _lanes(self, dimension: int, found: Block, site: Site, place: _Place, statement: ast.stmt) -> ast.expr:
        """The indices of a block along one dimension, by the name that they are given in a line before the store."""
        index = found.dimensions[dimension].index(self._tl)
        if found.dimensions[dimension].size is None or not stands_alone(place.file, statement):
            return index
        key = id(site.call.node), dimension
        if key not in place.indices:
            wanted = self._direction_of(found.dimensions[dimension].strides)
            name = place.indices[key] = free(wanted, self._taken)
            self._taken.add(name)
            place.before.setdefault(id(statement), []).append(f"{name} = {ast.unparse(index)}")
            place.anchors[id(statement)] = statement
        return ast.Name(place.indices[key], ast.Load())

    def _direction_of(self, strides: tuple[str, ...]) -> str:
        """What the indices along a stride are called."""
        if isinstance(self.directions, Directions) and strides in (self.directions.columns, self.directions.rows):
            return "columns" if strides == self.directions.columns else "rows"
        return "indices"

    def _why_not(self, what: str) -> str:
        if isinstance(self.directions, str):
            return self.directions
        return f"nothing says which of its directions runs along the {what}s"

    def _example(self, site: Site, place: _Place, statement: ast.stmt) -> str:
        try:
            axes = self._address(site).axes
        except NotAffine:
            axes = ()
        return f"{_grouped(_text(place.file, axes[-1].index))} % n_cols" if axes else "offs_n"

    def _block_dimension(
        self, operand: Operand, index: ast.expr, site: Site, place: _Place, statement: ast.stmt
    ) -> int | None:
        """The dimension of the stored block that an index lies along; None for one that is the same for all of it."""
        axis, rank = place.reader.tile_axis(index, statement)
        if axis is None and not rank:
            return None
        try:
            full = len(self._block(site).dimensions)
        except NotAffine as reason:
            raise self._unguarded(operand, site, f"its address {reason}") from None
        if axis is None or rank not in (0, full):
            raise self._unguarded(operand, site, f"`{_text(place.file, index)}` does not lie along one dimension of it")
        return axis if rank else full - 1

    def _bounds(
        self, dimension: int, index: ast.expr, site: Site, place: _Place, statement: ast.stmt
    ) -> tuple[ast.expr, ...]:
        """The test that keeps an index along a dimension of the stored block where the store is on."""
        found = self._block(site)
        size = found.dimensions[dimension].size
        if size is None:
            return ()
        self._clipped = True
        lanes = self._lanes(dimension, found, site, place, statement)
        spread = isinstance(index, ast.Subscript) or place.reader.tile_axis(index, statement)[1] > 0
        return (ast.Compare(found.spread(lanes, dimension) if spread else lanes, [ast.Lt()], [size]),)

    def _unguarded(self, operand: Operand, site: Site, why: str) -> FusionRefused:
        return _refusal(
            "KR304",
            f"what guards the index of `{operand.name}` at the bounds of the block could not be told",
            site.call.span,
            why,
            "index it along one dimension of the block, for example `[(col + tl.arange(0, BLOCK_N))[None, :]]`, "
            f"and make the block in assignments that all run before the {self._access}",
        )

    def _mask_of(
        self, operand: Operand, index: ast.expr, site: Site, place: _Place, statement: ast.stmt
    ) -> tuple[ast.expr, ...]:
        """The part of the store's mask that concerns an index."""
        mask = site.call.argument(site.form, "mask") if "mask" in site.form.parameters else None
        conjuncts = place.reader.conjuncts(mask, statement)
        mixed = place.reader.mixing(index, conjuncts, statement)
        if mixed:
            raise _refusal(
                "KR304",
                f"the part of the mask that guards the index of `{operand.name}` could not be told from the rest",
                Span.of(place.file.path, mixed[0]) if hasattr(mixed[0], "lineno") else site.call.span,
                f"varies along `{_text(place.file, index)}` and along something else",
                "write the mask as `(first test) & (second test)`, each over one index",
            )
        return place.reader.concerning(index, conjuncts, statement)

    # tl.store(c_ptrs, c, mask=m) -> tl.load(residual_ptrs, mask=m)
    def _tile(self, operand: Operand, site: Site, place: _Place, statement: ast.stmt) -> str:
        pointer = site.call.pointer(site.form)
        assert pointer is not None
        if self._made_outside:
            raise self._no_mirror(operand, site.call.span, "is a descriptor that the launcher makes")
        mirrored = self._mirrored(operand, pointer, place, statement, site.call.span)
        if site.form.through_descriptor:
            offsets = site.call.argument(site.form, "offsets")
            if offsets is None:
                raise self._no_mirror(operand, site.call.span, "is that of a scatter")
            return f"{mirrored}.load({_text(place.file, offsets)})"
        arguments = [mirrored]
        for name in ("mask", "boundary_check"):
            given = site.call.argument(site.form, name) if name in site.form.parameters else None
            if given is not None:
                arguments.append(f"{name}={_text(place.file, given)}")
        return f"{self._tl}.load({', '.join(arguments)})"

    # tl.store(c_ptrs, c, mask=m) -> tl.load(gate_ptr + offs_m[:, None] * stride_gate_m + ..., mask=m)
    def _strided_tile(self, operand: Operand, site: Site, place: _Place, statement: ast.stmt) -> str:
        known = self.directions
        if isinstance(known, str) or known.rows is None:
            what = "column" if isinstance(known, str) else "row"
            raise self._underivable(operand, what, site, place, statement)
        directions = [strides for strides, _ in self.tile_strides or ()]
        found = {axis.strides for axis in self._address(site).axes}
        if found != set(directions) or len(place.strides[operand.name]) != len(directions):
            raise _refusal(
                "KR301",
                f"where `{operand.name}` is read with strides of its own could not be derived",
                site.call.span,
                f"because `{self._plan.buffer}` is {self._done} in other directions than its rows, its columns and the "
                "dimension before them, and no launch shows which dimension each is",
                "pass it in the layout of the output, as a plain `tile`",
            )
        offsets: list[str] = []
        bounds: list[ast.expr] = []
        for strides, own in zip(directions, place.strides[operand.name], strict=True):
            index, dimension = self._along(strides, site, place, statement)
            offsets.append(f"{self._widened(index, strides, site, place)} * {own}")
            if dimension is not None:
                bounds += self._bounds(dimension, index, site, place, statement)
        pointers = " + ".join((place.parameters[operand.name], *offsets))
        if stands_alone(place.file, statement):
            name = free(f"{operand.name}_ptrs", self._taken)
            self._taken.add(name)
            place.before.setdefault(id(statement), []).append(f"{name} = {pointers}")
            place.anchors[id(statement)] = statement
            pointers = name
        mask = site.call.argument(site.form, "mask") if "mask" in site.form.parameters else None
        masks = [_text(place.file, test) for test in ([mask] if mask is not None else bounds)]
        text = " & ".join(map(_grouped, masks)) if len(masks) > 1 else "".join(masks)
        return f"{self._tl}.load({pointers}" + (f", mask={text})" if text else ")")

    # tl.store(c_ptrs, c, mask=m) -> tl.store(pre_ptrs, c, mask=m)
    def _mirrored_store(self, site: StoreSite) -> KeptAt:
        assert self._kept is not None
        pointer, place = site.call.pointer(site.form), self._places[site.call.function]
        assert pointer is not None
        statement, span = place.definitions.statement_of(site.call.node), site.call.span
        if self._made_outside:
            raise self._no_mirror(self._kept, span, "is a descriptor that the launcher makes")
        if not isinstance(statement, ast.Expr) or statement.value is not site.call.node:
            raise self._no_mirror(self._kept, span, "stands in a store that is part of a larger statement")
        text = self._mirrored(self._kept, pointer, place, statement, span)
        method = isinstance(site.call.node.func, ast.Attribute) and site.call.node.func.value is pointer
        parameter = place.parameters[self._kept.name]
        name = free(self._kept.name if self._kept.name != parameter else f"{parameter}_value", self._taken)
        self._taken.add(name)
        return KeptAt(text, None if method else argument_position(site.call.node, pointer), statement, name)

    # ----------------------------------------------------------------------------------------------------------- mirrors

    def _mirrored(self, operand: Operand, pointer: ast.expr, place: _Place, at: ast.stmt, span: Span) -> str:
        """The text of `pointer` over the operand instead of the output; the names it goes through are mirrored too."""
        found = list(self._pointers_in(pointer, place.function))
        if len(found) != 1:
            raise self._no_mirror(operand, span, "does not start from one pointer")
        name = self._mirror(operand, _spelled(found[0]), place, at, span)
        text = _renamed(place.file, pointer, found, name)
        moved = place.definitions.moved_at(_spelled(found[0]), at) if operand is not self._kept else None
        return text if moved is None else f"{text} + {ast.unparse(moved.distance(self._tl))}"

    def _mirror(self, operand: Operand, name: str, place: _Place, at: ast.stmt, span: Span, behind: int = 0) -> str:
        """The operand's counterpart of the pointer `name`, its assignments mirrored behind the originals: of one that a loop
        moves on, those before the loop. `behind` counts the names from the store's own pointer on."""
        key = operand.name, name
        if key in place.mirrors:
            return place.mirrors[key]
        if name in place.bases:
            several = len(place.bases) > 1
            mirror = f"{operand.name}_{name}" if several else place.parameters[operand.name]
        else:
            mirror = free(_counterpart(name, self._plan.buffer, operand.name), self._taken)
        self._taken.add(mirror)
        place.mirrors[key] = mirror
        bindings = place.definitions.bindings(name)
        if not bindings and name not in place.bases:
            raise self._no_mirror(operand, span, f"goes through `{name}`, which is no local name")
        if bindings and not place.definitions.is_followed(name, at):
            moved = place.definitions.moved_at(name, at) if behind == 0 and operand is not self._kept else None
            if moved is None:
                raise self._no_mirror(operand, span, f"goes through `{name}`, which holds several values")
            bindings = [binding for binding in bindings if binding.statement is not moved.step]
        for binding in bindings:
            assert binding.value is not None
            used = list(self._pointers_in(binding.statement, place.function, name))
            names = {
                _spelled(node): self._mirror(operand, _spelled(node), place, at, span, behind + 1) for node in used
            }
            text = _renamed(place.file, binding.statement, used, names)
            place.statements.setdefault(id(binding.statement), {})[mirror] = text, binding.statement
        return mirror

    def _no_mirror(self, operand: Operand, span: Span, why: str) -> FusionRefused:
        if operand is self._kept:
            return _refusal(
                "KR306",
                f"the original value cannot be stored to `{self._parameters[operand.name].name}` where `{self._plan.buffer}` "
                "is stored",
                span,
                f"the pointer {why}",
                "compute the pointer from the parameter in assignments that all run before the store, which is a statement "
                "of its own",
            )
        help = (
            f"compute the pointer from the parameter in assignments that all run before the {self._access}, "
            + WRITE_THE_INDEX.format(name=operand.name, example="offs_m[:, None] * stride + offs_n[None, :]")
        )
        if self._made_outside:
            help = f"declare it with strides of its own: `--operand {operand.name}=tile:strided`"
        return _refusal(
            "KR303",
            f"`{operand.name}` cannot be read where `{self._plan.buffer}` is {self._done}",
            span,
            f"the pointer {why}",
            help,
        )

    # ------------------------------------------------------------------------------------------------------------- edits

    def _statement_edits(self, place: _Place) -> OperandEdits:
        """Mirrored assignments behind their originals and loads before their stores."""
        edits: list[Edit] = []
        additions: list[Addition | AddedStatements] = []
        lines: dict[int, list[str]] = {}
        newline = newline_of(place.file.text)
        for mirrored in place.statements.values():
            texts = [text for text, _ in mirrored.values()]
            statement = next(iter(mirrored.values()))[1]
            additions.append(AddedStatements(statement, behind=tuple(texts)))
            if stands_alone(place.file, statement):
                indent = indent_of(place.file, statement)
                lines.setdefault((statement.end_lineno or 0) + 1, [])[:0] = [indent + text for text in texts]
            else:
                end = place.file.offset(statement.end_lineno or 0, statement.end_col_offset or 0)
                edits.append(Edit(span_between(place.file, end, end), "".join(f"; {t}" for t in texts), _WHY))
        for key, texts in place.before.items():
            statement = place.anchors[key]
            additions.append(AddedStatements(statement, before=tuple(texts)))
            indent = indent_of(place.file, statement)
            lines.setdefault(statement.lineno, []).extend(indent + text for text in texts)
        for line, texts in lines.items():
            span = Span(place.file.path, line, 0, line, 0)
            edits.append(Edit(span, "".join(text + newline for text in texts), _WHY))
        return OperandEdits(tuple(edits), tuple(additions))

    def _call_edits(self, place: _Place) -> OperandEdits:
        """The operands as arguments of the helper calls on the way."""
        edits: list[Edit] = []
        additions: list[Addition | AddedStatements] = []
        for call in self._plan.path:
            if call.function != place.function.ref:
                continue
            keywords = tuple(self._passed(call, place))
            bracket = call_bracket(place.file, call.node)
            texts = [f"{name}={value}" for name, value in keywords]
            edits += inserted(place.file, bracket, len(bracket.items), texts, "an operand")
            additions.append(AddedKeywords(call.node, len(call.node.keywords), keywords))
        return OperandEdits(tuple(edits), tuple(additions))

    def _passed(self, call: HelperCall, place: _Place) -> Iterator[tuple[str, str]]:
        target = self._places[call.callee]
        at = place.definitions.statement_of(call.node)
        arguments = dict(bound_arguments(call.node, target.function))
        for operand in self._every:
            if not _is_mirrored(operand):
                yield target.parameters[operand.name], place.parameters[operand.name]
                yield from zip(target.strides[operand.name], place.strides[operand.name], strict=True)
                continue
            for base in target.bases:
                mirror = target.mirrors.get((operand.name, base))
                if mirror is not None:
                    yield mirror, self._mirrored(operand, arguments[base], place, at, call.span)

    def _parameter_edits(self, place: _Place) -> OperandEdits:
        """The operands as parameters of a helper."""
        names = [
            name
            for operand in self._every
            for name in (
                [m for (o, base), m in place.mirrors.items() if o == operand.name and base in place.bases]
                if _is_mirrored(operand)
                else [place.parameters[operand.name], *place.strides[operand.name]]
            )
        ]
        arguments = place.function.node.args
        texts = tuple(f"{name}=None" if arguments.defaults else name for name in names)
        count = len(arguments.posonlyargs) + len(arguments.args)
        bracket = definition_bracket(place.file, place.function.node)
        edits = inserted(place.file, bracket, len(bracket.items), texts, "an operand")
        return OperandEdits(edits, (AddedParameters(arguments, count, texts),))


_WHY = "what the op reads"

_STORE_WORDS = ("store", "store writes", "stored")
_LOAD_WORDS = ("load", "load reads", "loaded")


def _is_mirrored(operand: Operand) -> bool:
    """Whether an operand is read through a pointer that is made as the output's is."""
    return operand.kind is OperandKind.TILE and not operand.strided


def _is_block(site: Site) -> bool:
    """Whether a store goes through a block pointer or a tensor descriptor, which carry their bounds."""
    return site.block_pointer or site.form.through_descriptor


def _product_text(strides: Sequence[str]) -> str:
    return "`" + " * ".join(strides) + "`" if strides else "1"


def _is_loop_around(loop: ast.stmt, statement: ast.stmt) -> bool:
    """Whether `statement` stands in the body of a `for`, whose target it can use."""
    return isinstance(loop, ast.For) and any(node is statement for inner in loop.body for node in ast.walk(inner))


def _refusal(code: str, message: str, span: Span, label: str, help: str) -> FusionRefused:
    return FusionRefused((Diagnostic(code, message, (Label(span, label),), help=help),))


def _counterpart(name: str, output: str, operand: str) -> str:
    """`residual_ptrs` for `c_ptrs` when the output is `c_ptr`; `residual_tile` for `tile`."""
    stem = output.split("_")[0] if "_" in output else output
    rest = name[len(stem) :] if name.startswith(stem) and name != stem else f"_{name}"
    return operand + (rest if rest.startswith("_") else f"_{rest}")


def _text(file: SourceFile, node: ast.expr) -> str:
    """An expression as the user wrote it, on one line; one that was put together as Python writes it."""
    written = ast.unparse(node)
    if all(hasattr(part, "lineno") for part in ast.walk(node) if isinstance(part, ast.expr)):
        text = file.slice(Span.of(file.path, node))
        if "\n" not in text and _means(text, written):
            return text
    return written


def _means(text: str, written: str) -> bool:
    try:
        return ast.unparse(ast.parse(text, mode="eval").body) == written
    except SyntaxError:
        return False


def _grouped(text: str) -> str:
    """An expression as an operand of anything."""
    return printed(grouped(parsed(text)))


def _renamed(
    file: SourceFile,
    node: ast.expr | ast.stmt,
    pointers: Sequence[ast.Name | ast.Subscript],
    new: str | Mapping[str, str],
) -> str:
    """The text of `node` with each of `pointers` replaced."""
    start = file.offset(node.lineno, node.col_offset)
    end = file.offset(node.end_lineno or 0, node.end_col_offset or 0)
    pieces, position = [], start
    for pointer in sorted(pointers, key=lambda n: (n.lineno, n.col_offset)):
        first = file.offset(pointer.lineno, pointer.col_offset)
        pieces += [file.text[position:first], new if isinstance(new, str) else new[_spelled(pointer)]]
        position = file.offset(pointer.end_lineno or 0, pointer.end_col_offset or 0)
    return "".join([*pieces, file.text[position:end]])


def _is_of_numbers(type_: object) -> bool:
    """Whether a parameter is a tuple without buffers."""
    return isinstance(type_, tuple) and not any(str(item).startswith(("*", "tensordesc", "(")) for item in type_)


def _spelled(pointer: ast.Name | ast.Subscript) -> str:
    return pointer.id if isinstance(pointer, ast.Name) else ast.unparse(pointer)
