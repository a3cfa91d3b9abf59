"""Generated problems on strings, lists of words and dictionaries, by level."""

from __future__ import annotations

from random import Random

from anystep.tasks.code.spec import Arguments, Spec, counts, words

_TEXT = "(text: str)"
_MAP = "(prices: dict[str, int])"
_TEXTS: tuple[Arguments, ...] = (
    ("",),
    ("a",),
    ("A",),
    ("aa",),
    ("  ",),
    ("aAbB",),
    ("The end",),
    ("x y  z",),
    ("123",),
)
_LETTERS = "aeiourstln"


def _line(r: Random) -> Arguments:
    return (" ".join(words(r)),)


def _list(r: Random) -> Arguments:
    return (words(r),)


def _prices(r: Random) -> Arguments:
    return (counts(r),)


def count_letters(r: Random) -> Spec:
    letters = sorted(r.sample(_LETTERS, r.randint(1, 3)))
    named = " or ".join(f"'{letter}'" for letter in letters)
    body = f"""
        count = 0
        for letter in text:
            if letter in {"".join(letters)!r}:
                count += 1
        return count
        """
    says = f"Return how many letters of text are {named}. A capital letter is another letter."
    edges = (*_TEXTS, *((letter,) for letter in letters), ("".join(letters).upper(),), ("".join(letters * 2),))
    return Spec("letters", "count_letters", f"{_TEXT} -> int", says, body, _line, edges, tuple(letters))


def without_letters(r: Random) -> Spec:
    letters = "".join(sorted(r.sample(_LETTERS, r.randint(1, 3))))
    sign = r.choice(("", "-", "*"))
    named = " or ".join(f"'{letter}'" for letter in letters)
    body = f"return ''.join({sign!r} if letter in {letters!r} else letter for letter in text)"
    does = f"with {sign!r} in place of" if sign else "without"
    says = f"Return text {does} every letter that is {named}. A capital letter is another letter."
    edges = (*_TEXTS, (letters,), (letters.upper(),))
    return Spec("without", "change_text", f"{_TEXT} -> str", says, body, _line, edges, (letters, sign))


def end_of_text(r: Random) -> Spec:
    k, which = r.randint(1, 6), r.choice(("first", "last"))
    times = r.randint(1, 3)
    part = f"text[:{k}]" if which == "first" else f"text[-{k}:]"
    body = f"return {part}{f' * {times}' if times > 1 else ''}"
    repeated = f", repeated {times} times" if times > 1 else ""
    some = "character" if k == 1 else f"{k} characters"
    says = f"Return the {which} {some} of text{repeated}. A text that is too short is taken whole."
    edges = (*_TEXTS, ("abcdefgh"[:k],), ("abcdefgh"[: k - 1],), ("abcdefgh"[: k + 1],))
    return Spec("end", "end_of_text", f"{_TEXT} -> str", says, body, _line, edges, (k, which, times))


def count_words(r: Random) -> Spec:
    k = r.randint(2, 6)
    how, code = r.choice((("longer than", ">"), ("shorter than", "<"), ("exactly", "==")))
    body = f"return sum(1 for word in words if len(word) {code} {k})"
    says = f"Return how many of the words are {how} {k} letters{' long' if how == 'exactly' else ''}."
    edges: tuple[Arguments, ...] = (([],), ([""],), (["a" * k],), (["a" * (k - 1), "a" * (k + 1)],), (["b" * k] * 3,))
    return Spec("words", "count_words", "(words: list[str]) -> int", says, body, _list, edges, (k, code))


def join_words(r: Random) -> Spec:
    k, sign = r.randint(2, 5), r.choice(("-", "+", "/", " ", ", "))
    how, code = r.choice((("longer than", ">"), ("shorter than", "<")))
    change, call = r.choice((("in capitals", "word.upper()"), ("backwards", "word[::-1]"), ("as it is", "word")))
    body = f"return {sign!r}.join({call} for word in words if len(word) {code} {k})"
    says = f"Take the words that are {how} {k} letters and return them joined by {sign!r}, each written {change}."
    edges: tuple[Arguments, ...] = (([],), ([""],), (["a" * k],), (["abcdef"[: k - 1], "abcdef"[: k + 1]],), (["Ab"],))
    return Spec("join", "join_words", "(words: list[str]) -> str", says, body, _list, edges, (k, code, sign, call))


def chosen_word(r: Random) -> Spec:
    which, tie = r.choice(("longest", "shortest")), r.choice(("first", "last"))
    none = r.choice(("", "none"))
    sign = {"longest": ">", "shortest": "<"}[which] + ("" if tie == "first" else "=")
    body = f"""
        if not words:
            return {none!r}
        best = words[0]
        for word in words[1:]:
            if len(word) {sign} len(best):
                best = word
        return best
        """
    says = (
        f"Return the {which} of the words, the {tie} of them if several are equally long, or {none!r} if there is none."
    )
    edges: tuple[Arguments, ...] = (
        ([],),
        ([""],),
        (["a"],),
        (["ab", "cd"],),
        (["ab", "c", "d"],),
        (["a", "bc", "de"],),
    )
    return Spec("chosen", "choose_word", "(words: list[str]) -> str", says, body, _list, edges, (which, tie, none))


def dear_keys(r: Random) -> Spec:
    k = r.randint(-1, 8)
    how, code = r.choice((("greater than", ">"), ("at least", ">="), ("less than", "<"), ("at most", "<=")))
    bound = k + (code == ">") - (code == "<")  # above 3 is from 4
    order, backwards = r.choice((("", ""), (" backwards", ", reverse=True")))
    body = f"return sorted((name for name, price in prices.items() if price {code} {k}){backwards})"
    says = f"Return the list of the keys of prices whose value is {how} {k}, in alphabetical order{order}."
    edges: tuple[Arguments, ...] = (({},), ({"a": k},), ({"b": k, "a": k},), ({"c": k - 1, "b": k + 1, "a": k + 2},))
    return Spec("keys", "chosen_keys", f"{_MAP} -> list[str]", says, body, _prices, edges, (bound, code[0], order))


def shift_letters(r: Random) -> Spec:
    k = r.randint(1, 12)
    body = f"""
        result = ''
        for letter in text:
            if 'a' <= letter <= 'z':
                letter = chr((ord(letter) - ord('a') + {k}) % 26 + ord('a'))
            result += letter
        return result
        """
    says = (
        f"Return text with every small letter from a to z moved {k} places on in the alphabet, after z going on with a."
    )
    edges = (*_TEXTS, ("z",), ("az",), ("xyzXYZ",))
    return Spec("shift", "shift_letters", f"{_TEXT} -> str", says, body, _line, edges, (k,))


def run_lengths(r: Random) -> Spec:
    least = r.randint(1, 4)
    sign = r.choice(("", "x", ":", "*", "/"))
    body = f"""
        parts = []
        i = 0
        while i < len(text):
            j = i
            while j < len(text) and text[j] == text[i]:
                j += 1
            parts.append(text[i] + {sign!r} + str(j - i) if j - i >= {least} else text[i:j])
            i = j
        return ''.join(parts)
        """
    kept = f" A run of fewer than {least} is left as it is." if least > 1 else ""
    between = f", {sign!r}" if sign else ""
    says = f"Return text with every run of one character written as that character{between} and the run's length.{kept}"

    def draw(r: Random) -> Arguments:
        return ("".join(r.choice("aabcX") * r.choice((1, 1, 2, 3, 4)) for _ in range(r.randint(2, 5))),)

    edges = (*_TEXTS, ("aaab",), ("abbb",), ("a" * 12,), ("aab" * 2,))
    return Spec("runs", "run_lengths", f"{_TEXT} -> str", says, body, draw, edges, (least, sign))


def frequent_words(r: Random) -> Spec:
    k = r.randint(1, 3)
    least = r.randint(1, 4)
    tie, key = r.choice(
        (("alphabetically first", "word"), ("shorter, then the alphabetically first", "len(word), word"))
    )
    body = f"""
        times = {{}}
        for word in words:
            if len(word) >= {least}:
                times[word] = times.get(word, 0) + 1
        return sorted(times, key=lambda word: (-times[word], {key}))[:{k}]
        """
    some = "word that occurs" if k == 1 else f"{k} different words that occur"
    says = (
        f"Of the words of {least} or more letters, return the list of the {some} most often, the most frequent first; "
        f"of equally frequent ones the {tie} comes first. There may be fewer."
    )

    def draw(r: Random) -> Arguments:
        some = words(r, 3, 4)
        return ([r.choice(some) for _ in range(r.randint(5, 8))],)

    edges: tuple[Arguments, ...] = (
        ([],),
        (["a"],),
        (["b", "a"],),
        (["bb", "a", "c"],),
        (["", "", "a"],),
        (["c", "c", "b", "b", "aa", "aa"],),
    )
    return Spec(
        "frequent", "frequent_words", "(words: list[str]) -> list[str]", says, body, draw, edges, (k, key, least)
    )


def merged(r: Random) -> Spec:
    how, code = r.choice(
        (("the sum", "a[key] + b[key]"), ("the larger", "max(a[key], b[key])"), ("the smaller", "min(a[key], b[key])"))
    )
    least = r.randint(-5, 9)
    body = f"""
        result = {{}}
        for key in list(a) + list(b):
            value = {code} if key in a and key in b else a[key] if key in a else b[key]
            if value >= {least}:
                result[key] = value
        return result
        """
    says = (
        f"Merge the dictionaries a and b into a new one: a key of both has {how} of its two values. Keys whose merged "
        f"value is less than {least} are left out."
    )

    def draw(r: Random) -> Arguments:
        first = counts(r, 2, 3)
        return (first, {**counts(r, 1, 2), r.choice(list(first)): r.randint(-5, 12)})

    one, two = {"x": least, "y": least - 1}, {"x": 1, "z": least}
    edges: tuple[Arguments, ...] = (
        ({}, {}),
        (one, {}),
        ({}, one),
        (one, two),
        (two, one),
        (one, one),
        ({"x": 0}, {"x": 0}),
    )
    return Spec(
        "merge",
        "merge_counts",
        "(a: dict[str, int], b: dict[str, int]) -> dict[str, int]",
        says,
        body,
        draw,
        edges,
        (code, least),
    )


LEVELS = {
    1: (count_letters, without_letters, end_of_text, count_words),
    2: (join_words, chosen_word, dear_keys, shift_letters),
    3: (run_lengths, frequent_words, merged),
}
