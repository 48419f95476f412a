"""The language of epilogues: one text is the Triton code, the torch reference and what validation checks.

Text (`parsing`) or a Python function (`tracing`) -> expression graph (`graph`) -> Triton source (`emission`), torch text
and torch evaluation (`torch_side`). This module is what the rest of the package uses of it.
"""

from __future__ import annotations

from kernel_rewrite.pointwise.calls import TritonCall, called_name, parse_call
from kernel_rewrite.pointwise.emission import Emission, Epilogue, HelperSource, emit
from kernel_rewrite.pointwise.function import Pointwise
from kernel_rewrite.pointwise.graph import Apply, Input, Node, Number, applications, key_of
from kernel_rewrite.pointwise.parsing import EPILOGUE_FILE, parse_epilogue, signature

__all__ = [
    "EPILOGUE_FILE",
    "Apply",
    "Emission",
    "Epilogue",
    "HelperSource",
    "Input",
    "Node",
    "Number",
    "Pointwise",
    "TritonCall",
    "applications",
    "called_name",
    "emit",
    "key_of",
    "parse_call",
    "parse_epilogue",
    "signature",
]
