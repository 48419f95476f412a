"""The equivalence run: the original kernel + the torch op against the fused file, on inputs drawn for the purpose.

The one stage that executes the user's code, in a process of its own (`verify.runner`); nothing here imports torch or
triton.
"""

from kernel_rewrite.verify.equivalence import verify
from kernel_rewrite.verify.results import Mismatch, OutputComparison, Trial, Verification, render, to_json

__all__ = ["Mismatch", "OutputComparison", "Trial", "Verification", "render", "to_json", "verify"]
