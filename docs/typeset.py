"""Write the formulas of docstrings, which are plain text, as TeX.

The plain text has these conventions: a product is written with spaces; a / b c is
(a / b) c; √ and ∛ take the next factor; an index or a power of more than one symbol
stands in brackets, as in m_(t-1); |x| is a norm and <x, y> an inner product.
"""

import re
from typing import NamedTuple

SYMBOLS = {
    "α": r"\alpha",
    "β": r"\beta",
    "γ": r"\gamma",
    "δ": r"\delta",
    "ε": r"\varepsilon",
    "η": r"\eta",
    "θ": r"\theta",
    "κ": r"\kappa",
    "λ": r"\lambda",
    "μ": r"\mu",
    "ν": r"\nu",
    "ρ": r"\rho",
    "σ": r"\sigma",
    "τ": r"\tau",
    "φ": r"\varphi",
    "Δ": r"\Delta",
    "Σ": r"\sum",
    "∇": r"\nabla",
    "∞": r"\infty",
    "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}",
    "...": r"\dots",
    "=": "=",
    "<": "<",
    ">": ">",
    "<=": r"\leq",
    ">=": r"\geq",
    "<-": r"\leftarrow",
    "+": "+",
    "-": "-",
    "±": r"\pm",
    "·": r"\cdot",
    ",": ",",
    ":": ":",
}
ACCENTS = {"\u0302": "hat", "\u0304": "bar", "\u0303": "tilde"}
POWERS = {
    "²": "2",
    "³": "3",
    "ᵀ": r"\top",
    "⁻¹": "-1",
    "*": "*",
    "'": r"\prime",
}
FUNCTIONS = ("max", "min", "log", "exp", "sign", "clip", "mean", "rms", "triu")
OPERATORS = ("=", "<", ">", "<=", ">=", "<-", "+", "-", "±", "·", ",", ":")
TEX = ("max", "min", "log", "exp")  # Functions of which TeX has the name.
ATTACHED = ("power", "sign")  # Kinds of tokens that stand above the symbol before.

WORD = (
    rf"(?:`[^`]*`|(?!(?:{'|'.join(FUNCTIONS)})[(_])(?<![_^A-Za-z])"
    r"[A-Za-z]{2,}(?:[-_'][A-Za-z]+)*|\ba(?=\s[a-z]{2}))"
)
TOKEN = re.compile(
    rf"""(?P<words>[\s,:]*{WORD}(?:[\s,:]+{WORD})*[\s:]*)
    | (?P<space>\s+)
    | (?P<function>(?:{"|".join(FUNCTIONS)})(?=[(_]))
    | (?P<word>[A-Za-z]{{2,}})
    | (?P<symbol>[A-Za-z{"".join(c for c in SYMBOLS if "Α" <= c <= "ω" and c != "Σ")}∇])
    | (?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)
    | (?P<accent>[{"".join(ACCENTS)}])
    | (?P<power>⁻¹|[²³ᵀ'*])
    | (?P<sign>(?<=\S)[-+](?=[\s),]|$))
    | (?P<other>\.\.\.|<-|<=|>=|.)""",
    re.X,
)
SENTENCE = re.compile(r"(?<=[^.])\.(?:\s+|$)")
# A clause ends with a comma or a colon before an equation, "with", "where" or "and".
JOIN = "(?:with |where |and |then )*"
LEFT_SIDE = r"[^\s,=]+ (?:=|<-) "
CLAUSE = re.compile(rf"(?<=[,:]) (?={JOIN}{LEFT_SIDE}|with |where |and )")
EQUATION = re.compile(rf"^{JOIN}{LEFT_SIDE}(?!\d+ [a-z]|[a-z]{{3,}}\b(?![(_]))")
UPDATE = re.compile(r"^(?:u_t =|U_t =|[xX]_\(t\+1\) =|φ <-) (?!0)")


class Token(NamedTuple):
    """A token: its kind (the name of a group of TOKEN) and its text."""

    kind: str
    text: str


def typeset(paragraph: str) -> str:
    """Write a paragraph as Markdown, in which each equation is displayed as TeX.

    Args:
      paragraph: Text such as "m_t = μ m_(t-1) + g_t, u_t = -η_t m_t. Here t counts."
    Returns:
      Markdown. Sentences without an equation stay as they are.
    Example:
      >>> print(typeset("u_t = -η_t g_t, where η_t is the rate. It is old."))
      $$
      u_t = - \\eta_t g_t,
      $$
      <BLANKLINE>
      where $\\eta_t$ is the rate.
      <BLANKLINE>
      It is old.
    """
    blocks: list[str] = []
    prose: list[str] = []
    for sentence in filter(None, SENTENCE.split(paragraph)):
        first, *clauses = CLAUSE.split(sentence)
        end = "" if sentence.endswith(":") else "."
        if EQUATION.match(first) or any(UPDATE.match(clause) for clause in clauses):
            blocks += [*_paragraph(prose), *_displayed([first, *clauses], end)]
            prose = []
        else:
            prose.append(sentence + end)
    return "\n\n".join([*blocks, *_paragraph(prose)])


def _paragraph(sentences: list[str]) -> list[str]:
    return [escaped(" ".join(sentences))] if sentences else []


def _displayed(clauses: list[str], end: str) -> list[str]:
    """Display each clause that is an equation, and keep the others as text."""
    *before, last = clauses
    blocks: list[str] = []
    is_text = False
    for clause in (*before, last + end):
        if EQUATION.match(clause):
            blocks.append(f"$$\n{tex(clause[:-1])}{clause[-1]}\n$$")
            is_text = False
        elif is_text:
            blocks[-1] += " " + inline(clause)
        else:
            blocks.append(inline(clause))
            is_text = True
    return blocks


def inline(text: str) -> str:
    """Write the formulas of a text as inline TeX, and leave its words.

    Example:
      >>> inline("where η_t is the rate")
      'where $\\eta_t$ is the rate'
    """
    written, formula, depth = "", "", 0
    for token in [*_tokens(text), Token("words", "")]:
        depth += (token.text == "(") - (token.text == ")")
        if token.kind == "words" and depth == 0:
            written += _in_text(formula) + escaped(token.text)
            formula = ""
        else:
            formula += token.text
    return written


def _in_text(formula: str) -> str:
    inner = formula.strip()
    lead = inner[: len(inner) - len(inner.lstrip(",:"))]  # As in "the update, g_t".
    inner = inner.removeprefix(lead).lstrip()
    tail = inner[len(inner.rstrip(",.:")) :]
    inner = inner.removesuffix(tail)
    before = formula[: len(formula) - len(formula.lstrip())]
    after = formula[len(formula.rstrip()) :] if inner or tail else ""
    lead += " " if lead and inner else ""
    return f"{before}{lead}{f'${tex(inner)}$' if inner else ''}{tail}{after}"


def escaped(text: str) -> str:
    """Escape what Markdown would take for markup, outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*|<_])", r"\\\1", part)
        for part in parts
    )


def tex(formula: str) -> str:
    """Write one formula as TeX.

    Raises:
      ValueError: The formula has a character or a bracket that has no meaning here.
    Example:
      >>> tex("u_t = -η_t m̂_t / (√v̂_t + ε)")
      'u_t = -\\eta_t \\frac{\\hat{m}_t}{\\sqrt{\\hat{v}_t} + \\varepsilon}'
    """
    written, rest = _sequence(_tokens(formula))
    if rest:
        raise ValueError(f"not understood from {rest[0].text!r} on: {formula!r}")
    return written


def _tokens(text: str) -> list[Token]:
    return [Token(str(match.lastgroup), match[0]) for match in TOKEN.finditer(text)]


def _sequence(tokens: list[Token], end: str = "") -> tuple[str, list[Token]]:
    """Write factors and operators up to `end`; return the text and the tokens
    behind.
    """
    written: list[str] = []
    start = 0  # Where the product that is being read begins.
    numerator = ""  # What a division has before its "/".
    while tokens and not (
        tokens[0].text == end and (end != "|" or start < len(written))
    ):
        token, behind = tokens[0], tokens[1:]
        if token.text == "/":
            if start == len(written):
                raise ValueError("nothing stands before a '/'")
            numerator, written[start:] = _bare(" ".join(written[start:])), []
            tokens = behind
        elif token.kind == "space":
            tokens = behind
        elif token.kind == "words":
            written.append(_words(token.text))
            start, tokens = len(written), behind
        elif token.text in OPERATORS and not _opens_product(tokens):
            written.append(SYMBOLS[token.text])
            start, tokens = len(written), behind
        elif token.text in (")", ">"):
            break
        else:
            one, tokens = _factors(tokens)
            if numerator:
                one, numerator = rf"\frac{{{numerator}}}{{{_bare(one)}}}", ""
            written.append(one)
    return " ".join(written), tokens


def _words(text: str) -> str:
    plain = text.replace("`", "").replace("_", r"\_")
    return rf"\text{{{plain}}}"


def _factors(tokens: list[Token]) -> tuple[str, list[Token]]:
    """Write factors that stand without a space between them, as in sᵀy or f(x)."""
    one, tokens = _factor(tokens)
    while tokens and (tokens[0].kind in ("symbol", "number") or tokens[0].text == "("):
        more, tokens = _factor(tokens)
        one += f" {more}"
    return one, tokens


def _opens_product(tokens: list[Token]) -> bool:
    """Return whether the first token is the "<" of an inner product, as in <g, x>."""
    return tokens[0].text == "<" and len(tokens) > 1 and tokens[1].kind != "space"


def _factor(tokens: list[Token]) -> tuple[str, list[Token]]:
    """Write one factor with its indices and powers."""
    token, tokens = tokens[0], tokens[1:]
    below, above = "", ""
    if token.text == "(":
        inner, tokens = _closed(tokens, ")")
        base = f"({inner})"
    elif token.text == "|":
        inner, tokens = _closed(tokens, "|")
        base = rf"\lvert {inner} \rvert"
    elif token.text == "<":
        inner, tokens = _closed(tokens, ">")
        base = rf"\langle {inner} \rangle"
    elif token.text in ("√", "∛"):
        inner, tokens = _factors(tokens)
        base = rf"\sqrt{'[3]' * (token.text == '∛')}{{{_bare(inner)}}}"
    elif token.kind == "function":
        base = rf"\{token.text}" if token.text in TEX else rf"\mathrm{{{token.text}}}"
    else:
        base = _symbol(token)
        if tokens and tokens[0].kind == "accent":
            base = rf"\{ACCENTS[tokens[0].text]}{{{base}}}"
            tokens = tokens[1:]
        if token.kind == "symbol" and tokens and tokens[0].kind == "number":
            below, tokens = tokens[0].text, tokens[1:]
    while tokens and (tokens[0].text in ("_", "^") or tokens[0].kind in ATTACHED):
        mark = tokens[0]
        if mark.kind in ATTACHED:
            script, tokens = POWERS.get(mark.text, mark.text), tokens[1:]
        else:
            script, tokens = _script(tokens[1:])
        if mark.text == "_":
            below = f"{below}, {script}" if below else script
        else:
            above += script
    written = base + _attached("_", below) + _attached("^", above)
    if token.text == "Σ":
        terms, tokens = _product(tokens)
        written += f" {terms}"
    return written, tokens


def _product(tokens: list[Token]) -> tuple[str, list[Token]]:
    """Write what a sum is over: the factors up to an operator or a closing bracket."""
    written = []
    while tokens and tokens[0].kind != "words":
        if tokens[0].kind == "space":
            tokens = tokens[1:]
        elif tokens[0].text in (*OPERATORS, "/", ")"):
            break
        else:
            one, tokens = _factors(tokens)
            written.append(one)
    return " ".join(written), tokens


def _closed(tokens: list[Token], end: str) -> tuple[str, list[Token]]:
    inner, tokens = _sequence(tokens, end)
    if not tokens or tokens[0].text != end:
        raise ValueError(f"no {end!r} closes after {inner!r}")
    return inner, tokens[1:]


def _script(tokens: list[Token]) -> tuple[str, list[Token]]:
    """Write an index or a power: one symbol, one word, or a bracket."""
    token = tokens[0]
    if token.text == "(":
        return _closed(tokens[1:], ")")
    if token.text == "-":
        script, tokens = _script(tokens[1:])
        return f"-{script}", tokens
    if token.kind == "word":
        return rf"\mathrm{{{token.text}}}", tokens[1:]
    return _symbol(token), tokens[1:]


def _symbol(token: Token) -> str:
    if token.kind in ("symbol", "number", "function") or token.text in SYMBOLS:
        return SYMBOLS.get(token.text, token.text)
    raise ValueError(f"{token.text!r} has no meaning in a formula")


def _bare(factor: str) -> str:
    """Return a factor without the brackets around all of it."""
    if factor.startswith("(") and factor.endswith(")"):
        depth = 0
        for at, character in enumerate(factor):
            depth += (character == "(") - (character == ")")
            if depth == 0:
                return factor[1:-1] if at + 1 == len(factor) else factor
    return factor


def _attached(mark: str, script: str) -> str:
    if not script:
        return ""
    return mark + (script if len(script) == 1 else f"{{{script}}}")
