"""How a check says what it found: one sentence for `enable`, its parts for the doctor."""

from immud.model import Problem, Severity


def finding(
    severity: Severity,
    code: str,
    what: str,
    do: str = "",
    *,
    why: str = "",
    mend: tuple[str, ...] = (),
    **data: str,
) -> Problem:
    """`what` is so, `why` that matters, `do` what against it.

    `mend` are the commands, where it takes no more than those.
    """
    text = f"{what}, and {why}" if why else what
    commands = mend or ((f"# {do}",) if do else ())
    parts = {"what": what, "why": why, "mend": "\n".join(commands)}
    return Problem(severity, code, f"{text}; {do}" if do else text, {**parts, **data})


def error(
    code: str,
    what: str,
    do: str = "",
    *,
    why: str = "",
    mend: tuple[str, ...] = (),
    **data: str,
) -> Problem:
    """What stops `enable`."""
    return finding(Severity.ERROR, code, what, do, why=why, mend=mend, **data)
