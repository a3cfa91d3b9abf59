"""Any error as a refusal: what the caller did is told, what broke inside is told to the log alone."""

from __future__ import annotations

from collections.abc import Callable

from anystep.errors import ModelError, Unsupported, UsageError
from anystep.serve.refusal import Refused


def explained(error: Exception, say: Callable[[str], None]) -> Refused:
    """`error` as what the client is told; a defect goes to `say` with its place, and nothing of it to the client."""
    if isinstance(error, Refused):
        if error.__cause__ is not None:
            say(f"{error.message} {' '.join(str(error.__cause__).split())}")
        return error
    if isinstance(error, (UsageError, Unsupported)):
        return Refused(" ".join(str(error).split()), code="invalid_value")
    if isinstance(error, ModelError):
        return Refused(" ".join(str(error).split()), status=500, code="model_error")
    if isinstance(error, MemoryError):
        return Refused("out of memory: ask for fewer samples, or shorter ones.", status=500, code="out_of_memory")
    say(f"{type(error).__name__}: {' '.join(str(error).split())} ({_place(error)}; this is a defect)")
    return Refused("the server failed at this request; its log says where.", status=500, code="internal_error")


def _place(error: BaseException) -> str:
    """File and line of the error's origin."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
