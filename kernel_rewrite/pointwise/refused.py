"""What torch has and an epilogue cannot: functions whose value at one element depends on others, or on chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """`reason` follows the text of the call; `way_out` says what to do."""

    reason: str
    way_out: str


_REDUCTION = Refused(
    "needs every element of a row or of the whole output, and a store has one tile of it",
    "leave it in torch, after the kernel, or compute it in the kernel where the whole row is at hand",
)
_NORMALIZATION = Refused(
    "divides by a statistic of a whole row, and a store has one tile of it",
    "compute the statistic in a kernel of its own and pass it: `(x - mean) * rstd` with `--operand mean=column`",
)
_LAYOUT = Refused(
    "changes where elements lie, and the kernel decides where it stores",
    "leave it in torch after the kernel (a view costs nothing there), or change the kernel's strides",
)
_PRODUCT = Refused(
    "multiplies matrices: each element needs a whole row and a whole column",
    "only functions of single elements can be fused into a store; for an elementwise product write `*`",
)
_INDEXING = Refused(
    "reads other elements than the one that is stored",
    "index an operand instead, in the kernel's own names: `table[offsets]`",
)
_SCAN = Refused(
    "needs the elements before it",
    "leave it in torch, after the kernel",
)
_RANDOM = Refused(
    "draws random numbers, which no two programs draw alike",
    "draw the mask in torch and pass it: `x * mask` with `--operand mask=tile`",
)
_LARGEST = Refused(
    "is the largest or smallest element of the output, and a store has one tile of it",
    "between two values, element by element, write `maximum(x, y)` or `minimum(x, y)`",
)
_IN_PLACE = Refused(
    "changes a tensor in place, and an epilogue is the value to store",
    "leave the underscore out",
)

_FAMILIES: tuple[tuple[Refused, str], ...] = (
    (
        _REDUCTION,
        "softmax log_softmax softmin sum mean prod std var norm logsumexp any all count_nonzero nansum median",
    ),
    (_REDUCTION, "cross_entropy nll_loss mse_loss l1_loss kl_div argmax argmin topk cosine_similarity"),
    (_NORMALIZATION, "layer_norm rms_norm batch_norm group_norm instance_norm normalize"),
    (_LAYOUT, "transpose T mT permute t swapaxes movedim reshape view flatten unflatten squeeze unsqueeze expand"),
    (_LAYOUT, "contiguous repeat tile flip roll cat stack concat split chunk pad narrow diagonal broadcast_to"),
    (_PRODUCT, "matmul mm bmm addmm baddbmm linear dot mv einsum outer conv1d conv2d conv3d"),
    (_INDEXING, "__getitem__ gather index_select take embedding scatter index_put masked_fill_ index_add select"),
    (_SCAN, "cumsum cumprod cummax cummin logcumsumexp sort argsort unique"),
    (_RANDOM, "dropout alpha_dropout feature_dropout bernoulli rand rand_like randn randn_like multinomial rrelu"),
    (_LARGEST, "max min amax amin aminmax"),
    (_IN_PLACE, "relu_ add_ sub_ mul_ div_ clamp_ sigmoid_ tanh_ neg_ exp_ abs_ copy_ fill_ zero_"),
)

NOT_POINTWISE: Mapping[str, Refused] = {name: refused for refused, names in _FAMILIES for name in names.split()}
