"""Generated problems on whole numbers and lists of them, by level."""

from __future__ import annotations

from random import Random

from anystep.tasks.code.spec import Arguments, Spec, asked, made, numbers

_LIST = "(xs: list[int])"


def _bare(*bounds: int) -> tuple[Arguments, ...]:
    """Edge cases of a list of whole numbers, with what lies at a condition's bounds."""
    near = sorted({b + d for b in bounds for d in (-1, 0, 1)})
    return (([],), ([0],), ([-1],), ([5, 5, 5],), (near,), (near[::-1],), *(([b],) for b in bounds), ([-7, -3, -12],))


def _lists(r: Random) -> Arguments:
    return (numbers(r),)


def count_where(r: Random) -> Spec:
    c = asked(r)
    body = f"""
        count = 0
        for x in xs:
            if {c.code}:
                count += 1
        return count
        """
    says = f"Return how many of the numbers in xs are {c.said}."
    return Spec("count", "count_numbers", f"{_LIST} -> int", says, body, _lists, _bare(*c.bounds), (c.key,))


def sum_where(r: Random) -> Spec:
    c = asked(r)
    body = f"""
        total = 0
        for x in xs:
            if {c.code}:
                total += x
        return total
        """
    says = f"Return the sum of the numbers in xs that are {c.said}."
    return Spec("sum", "sum_numbers", f"{_LIST} -> int", says, body, _lists, _bare(*c.bounds), (c.key,))


def keep_where(r: Random) -> Spec:
    c = asked(r)
    body = f"return [x for x in xs if {c.code}]"
    says = f"Return the list of the numbers in xs that are {c.said}, in the same order."
    return Spec("keep", "keep_numbers", f"{_LIST} -> list[int]", says, body, _lists, _bare(*c.bounds), (c.key,))


def change_each(r: Random) -> Spec:
    said, code = made(r)
    body = f"return [{code} for x in xs]"
    says = f"Return the list of the numbers in xs, each {said}."
    return Spec("change", "change_numbers", f"{_LIST} -> list[int]", says, body, _lists, _bare(1), (code,))


def formula(r: Random) -> Spec:
    k, c = r.randint(2, 9), r.randint(1, 9)
    sign, word = r.choice((("+", "plus"), ("-", "minus")))
    body = f"return a * {k} {sign} b * {c}"
    says = f"Return {k} times a {word} {c} times b."
    edges: tuple[Arguments, ...] = ((0, 0), (1, 0), (0, 1), (-1, 1), (-4, -9), (1, 1))
    return Spec(
        "formula", "combine", "(a: int, b: int) -> int", says, body, lambda r: (r.randint(2, 20), r.randint(2, 20)),
        edges, (k, sign, c),
    )  # fmt: skip


def change_where(r: Random) -> Spec:
    c = asked(r)
    becomes, change = made(r)
    body = f"""
        found = []
        for x in xs:
            if {c.code}:
                found.append({change})
        return found
        """
    says = f"Take the numbers in xs that are {c.said} and return the list of them, each {becomes}, in the same order."
    return Spec(
        "change-where",
        "pick_and_change",
        f"{_LIST} -> list[int]",
        says,
        body,
        _lists,
        _bare(*c.bounds),
        (c.key, change),
    )


def extreme_where(r: Random) -> Spec:
    c = asked(r)
    which = r.choice(("largest", "smallest"))
    none = r.choice((-1, 0, 100))
    body = f"""
        found = [x for x in xs if {c.code}]
        if not found:
            return {none}
        return {"max" if which == "largest" else "min"}(found)
        """
    says = f"Return the {which} of the numbers in xs that are {c.said}, or {none} if there is none."
    return Spec(
        "extreme", "extreme_number", f"{_LIST} -> int", says, body, _lists, _bare(*c.bounds), (which, c.key, none)
    )


def first_index(r: Random) -> Spec:
    c = asked(r)
    which = r.choice(("first", "last"))
    body = f"""
        found = -1
        for i, x in enumerate(xs):
            if {c.code}{" and found < 0" if which == "first" else ""}:
                found = i
        return found
        """
    says = f"Return the index of the {which} number in xs that is {c.said}, or -1 if there is none."
    return Spec("index", "find_index", f"{_LIST} -> int", says, body, _lists, _bare(*c.bounds), (which, c.key))


def clipped_sum(r: Random) -> Spec:
    low, high = r.randint(-6, 2), r.randint(5, 14)
    body = f"""
        total = 0
        for x in xs:
            if x < {low}:
                x = {low}
            if x > {high}:
                x = {high}
            total += x
        return total
        """
    says = (
        f"Return the sum of the numbers in xs, where a number below {low} counts as {low} and one above {high} counts "
        f"as {high}."
    )
    return Spec("clip", "clipped_sum", f"{_LIST} -> int", says, body, _lists, _bare(low, high), (low, high))


def average_where(r: Random) -> Spec:
    c = asked(r)
    body = f"""
        found = [x for x in xs if {c.code}]
        if not found:
            return 0.0
        return sum(found) / len(found)
        """
    says = f"Return the average of the numbers in xs that are {c.said}, or 0.0 if there is none."
    return Spec("average", "average_number", f"{_LIST} -> float", says, body, _lists, _bare(*c.bounds), (c.key,))


def longest_run(r: Random) -> Spec:
    c = asked(r)
    body = f"""
        best = 0
        run = 0
        for x in xs:
            run = run + 1 if {c.code} else 0
            best = max(best, run)
        return best
        """
    says = f"Return the length of the longest run of neighbouring numbers in xs that are all {c.said}."
    return Spec("run", "longest_run", f"{_LIST} -> int", says, body, _lists, _bare(*c.bounds), (c.key,))


def window_sum(r: Random) -> Spec:
    k, which = r.randint(2, 5), r.choice(("largest", "smallest"))
    best = "max" if which == "largest" else "min"
    body = f"""
        if len(xs) < {k}:
            return 0
        return {best}(sum(xs[i:i + {k}]) for i in range(len(xs) - {k - 1}))
        """
    says = f"Return the {which} sum of {k} neighbouring numbers in xs, or 0 if xs has fewer than {k} numbers."
    edges = (*_bare(1), ([4] * k,), (list(range(k - 1)),), ([-2] * k,), ([-5, *[-1] * k],), ([9, *[0] * (k - 1), 1],))
    return Spec(
        "window", "window_sum", f"{_LIST} -> int", says, body, lambda r: (numbers(r, least=k),), edges, (k, which)
    )


def grouped(r: Random) -> Spec:
    m, c = r.randint(2, 6), asked(r)
    how, code = r.choice((("the sum", "sum(g)"), ("the largest", "max(g)"), ("the count", "len(g)")))
    body = f"""
        groups = {{}}
        for x in xs:
            if {c.code}:
                groups.setdefault(x % {m}, []).append(x)
        return {{rest: {code} for rest, g in groups.items()}}
        """
    says = (
        f"Group the numbers in xs that are {c.said} by their remainder modulo {m}. Return a dictionary from each "
        f"remainder that occurs to {how} of its group."
    )
    key = (m, code, c.key)
    return Spec("group", "by_remainder", f"{_LIST} -> dict[int, int]", says, body, _lists, _bare(m, *c.bounds), key)


def pair_count(r: Random) -> Spec:
    k = r.randint(2, 24)
    how, code = r.choice((("equal to", "=="), ("greater than", ">"), ("less than", "<")))
    body = f"""
        count = 0
        for i in range(len(xs)):
            for j in range(i + 1, len(xs)):
                if xs[i] + xs[j] {code} {k}:
                    count += 1
        return count
        """
    says = (
        f"Return how many pairs of two different positions in xs hold numbers whose sum is {how} {k}. Each pair counts "
        "once."
    )
    edges = (*_bare(k), ([k, 0],), ([k // 2, k - k // 2],), ([0, k, 0, k],), ([k + 1, 0],), ([k - 1, 0],))
    return Spec("pairs", "count_pairs", f"{_LIST} -> int", says, body, lambda r: (numbers(r, 0, 12),), edges, (k, code))


def reset_sum(r: Random) -> Spec:
    k = r.randint(5, 40)
    body = f"""
        sums = []
        total = 0
        for x in xs:
            total += x
            if total > {k}:
                total = 0
            sums.append(total)
        return sums
        """
    says = (
        f"Return the list of running sums of xs, where a sum that has become greater than {k} is set back to 0 at once."
    )
    edges = (*_bare(k), ([k, 1],), ([k + 1, 2, 3],), ([k // 2, k - k // 2, 1],))
    return Spec(
        "reset", "running_sums", f"{_LIST} -> list[int]", says, body, lambda r: (numbers(r, 0, 15),), edges, (k,)
    )


LEVELS = {
    1: (count_where, sum_where, keep_where, change_each, formula),
    2: (change_where, extreme_where, first_index, clipped_sum, average_where),
    3: (longest_run, window_sum, grouped, pair_count, reset_sum),
}
