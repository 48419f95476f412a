"""What `with_header` writes, `read_header` reads."""

from __future__ import annotations

import pytest

from kernel_rewrite.model import Assumption
from kernel_rewrite.rewrite.header import read_header, with_header


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_round_trip(quote: str, newline: str) -> None:
    epilogues = (
        ("out_ptr", "gelu(approximate='tanh')" if quote == '"' else 'gelu(approximate="tanh")'),
        ("b[1]", "relu"),
    )
    options = " ".join(f"--epilogue {quote}{output}={op}{quote}" for output, op in epilogues)
    text = with_header(
        f"#!/usr/bin/env python{newline}x = 1{newline}",
        version="1.2",
        source="my file.py::the_kernel",
        source_digest="0123abcd",
        command=f"kernel-rewrite fuse 'my file.py' --kernel the_kernel {options} --numerics fused",
        proved=["a long statement " * 10],
        assumptions=[Assumption("no-alias", "nothing overlaps " * 9), Assumption("fully-written", "all")],
    )
    header = read_header(text)
    assert header is not None
    assert (header.version, header.source, header.kernel) == ("1.2", "my file.py", "the_kernel")
    assert header.source_digest == "0123abcd"
    assert header.epilogues == epilogues
    assert header.numerics == "fused"
    assert header.assumptions == ("no-alias", "fully-written")


def test_no_header() -> None:
    assert read_header("x = 1\n") is None


def test_quotes_inside_quotes() -> None:
    command = 'kernel-rewrite fuse a.py --kernel k --epilogue "o=gelu(approximate="tanh")" --epilogue "p=relu"'
    text = with_header("", version="1", source="a.py::k", source_digest="0", command=command, proved=(), assumptions=())
    header = read_header(text)
    assert header is not None
    assert header.epilogues == (("o", 'gelu(approximate="tanh")'), ("p", "relu"))
