//! Hostile chat templates from a grammar: loops, filters, repetitions, nesting, values that grow.

use loquat::Rng;

/// A number below `n`.
pub(crate) fn below(rng: &mut Rng, n: usize) -> usize {
    ((f64::from(rng.uniform()) * n as f64) as usize).min(n.saturating_sub(1))
}

fn one<'t>(rng: &mut Rng, all: &[&'t str]) -> &'t str {
    all[below(rng, all.len())]
}

const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "64",
    "1000",
    "99999",
    "100001",
    "8000000",
    "99999999999",
    "1.5",
    "1e308",
    "-0.0",
    "0.1",
];
const TEXTS: [&str; 18] = [
    "''",
    "'a'",
    "'ab a'",
    "'%s'",
    "'%9999999d'",
    "'%*d'",
    "'{}'",
    "'{:>9999999}'",
    "'{0[0]}'",
    "'{:{}}'",
    "'\\u00e4 \\U0001f600'",
    "'\\n'",
    "' '",
    "'a.b.0'",
    "'<b>&\"'",
    "'upper'",
    "'role'",
    "'1'",
];
const NAMES: [&str; 16] = [
    "a",
    "b",
    "l",
    "d",
    "x",
    "ns.x",
    "ns.l",
    "ns.d",
    "ns",
    "messages",
    "messages[0].content",
    "tools",
    "nothing",
    "loop",
    "m",
    "loop.nextitem",
];
const FILTERS: [&str; 50] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "map",
    "tojson",
];
const TESTS: [&str; 24] = [
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "even",
    "filter",
    "in",
    "integer",
    "iterable",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];
const METHODS: [&str; 44] = [
    "capitalize",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalpha",
    "isprintable",
    "istitle",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "replace",
    "rfind",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
    "get",
    "items",
    "keys",
    "values",
    "copy",
    "append",
    "update",
    "cycle",
    "changed",
    "next",
    "isidentifier",
    "casefold",
];
const OPERATORS: [&str; 18] =
    ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or", "+", "~"];
/// Suffixes that a value may have any number of times.
const CHAINS: [&str; 16] = [
    ".b",
    "[0]",
    "()",
    "~a",
    "+1",
    "|upper",
    "|list",
    " and a",
    " or a",
    "*1",
    "**1",
    "==a",
    " if a else a",
    "[1:]",
    "|default(1)",
    "~'ab'",
];
/// Pairs that may enclose a value any number of times.
const NESTS: [(&str, &str); 12] = [
    ("(", ")"),
    ("[", "]"),
    ("{1:", "}"),
    ("not ", ""),
    ("-", ""),
    ("a[", "]"),
    ("range(", ")"),
    ("(a~", ")"),
    ("1 if a else ", ""),
    ("m(", ")"),
    ("a|default(", ")"),
    ("dict(a=", ")"),
];
const BLOCKS: [(&str, &str); 9] = [
    ("{% if a %}", "{% endif %}"),
    ("{% for x in [1] %}", "{% endfor %}"),
    ("{% for x in 'ab' %}", "{% endfor %}"),
    ("{% with b = a %}", "{% endwith %}"),
    ("{% set b %}", "{% endset %}"),
    ("{% filter upper %}", "{% endfilter %}"),
    ("{% macro m() %}", "{% endmacro %}"),
    ("{% call m() %}", "{% endcall %}"),
    ("{% generation %}", "{% endgeneration %}"),
];

/// The largest number of bytes of a repetition: more than a template may have of any kind.
const LONGEST: usize = 1 << 20;

/// The number of repetitions of a text: rarely large.
fn times(rng: &mut Rng, text: &str) -> usize {
    let most = [3, 30, 300, 30_000][below(rng, 4)];
    below(rng, most).min(LONGEST / text.len().max(1))
}

fn repeated(rng: &mut Rng, text: &str) -> String {
    text.repeat(times(rng, text))
}

fn arguments(rng: &mut Rng, depth: usize) -> String {
    let all: Vec<String> = (0..below(rng, 4)).map(|_| expression(rng, depth)).collect();
    let named = ["attribute=", "reverse=", "width=", "default=", "indent=", "first=", "count=", "*", "**"];
    let more =
        if below(rng, 5) == 0 { format!("{}{}", one(rng, &named), expression(rng, depth)) } else { String::new() };
    let comma = if all.is_empty() || more.is_empty() { "" } else { ", " };
    format!("({}{comma}{more})", all.join(", "))
}

fn expression(rng: &mut Rng, depth: usize) -> String {
    if depth == 0 {
        return match below(rng, 4) {
            0 => one(rng, &NUMBERS),
            1 => one(rng, &TEXTS),
            _ => one(rng, &NAMES),
        }
        .into();
    }
    let value = expression(rng, depth - 1);
    match below(rng, 16) {
        0..3 => format!("({value} {} {})", one(rng, &OPERATORS), expression(rng, depth - 1)),
        3..6 => format!("{value}|{}{}", one(rng, &FILTERS), arguments(rng, depth - 1)),
        6 => format!("{value}|{}|{}", one(rng, &FILTERS), one(rng, &FILTERS)),
        7..9 => format!("({value}).{}{}", one(rng, &METHODS), arguments(rng, depth - 1)),
        9 => format!("({value} is {} {})", one(rng, &TESTS), expression(rng, 0)),
        10 => {
            let bounds = ["", "1", "-1", "99999", one(rng, &NAMES)];
            format!("({value})[{}:{}:{}]", one(rng, &bounds), one(rng, &bounds), one(rng, &bounds))
        }
        11 => format!("({value})[{}]", expression(rng, depth - 1)),
        12 => format!("[{value}, {}, {value}]", expression(rng, depth - 1)),
        13 => format!("{{{}: {value}, 'k': {value}}}", expression(rng, 0)),
        14 => format!(
            "{}{}",
            one(rng, &["m", "range", "dict", "namespace", "cycler", "joiner", "loop"]),
            arguments(rng, depth - 1)
        ),
        _ => match below(rng, 3) {
            0 => {
                let chain = one(rng, &CHAINS);
                format!("({value}{})", repeated(rng, chain))
            }
            1 => {
                let (open, close) = NESTS[below(rng, NESTS.len())];
                let n = times(rng, open);
                format!("({}{value}{})", open.repeat(n), close.repeat(n))
            }
            _ => format!("({value} if {} else {})", expression(rng, depth - 1), expression(rng, depth - 1)),
        },
    }
}

/// A text made of texts, lists and numbers, which fails only at the limits.
fn text(rng: &mut Rng, depth: usize) -> String {
    if depth == 0 {
        return one(rng, &["a", "a", "ns.x", "'ab a'", "'<\\u00e4>'", "''", "messages[0].content"]).into();
    }
    let of = text(rng, depth - 1);
    match below(rng, 12) {
        0 => format!("({of} ~ {})", text(rng, depth - 1)),
        1 => format!("({of} + {})", text(rng, depth - 1)),
        2..5 => {
            let filters = [
                "upper",
                "lower",
                "title",
                "capitalize",
                "trim",
                "trim('ab')",
                "e",
                "replace('a', 'bb')",
                "replace('', 'b')",
                "indent",
                "indent(3, true)",
                "center(1000)",
                "center(7999999)",
                "string",
                "tojson",
                "striptags",
                "urlencode",
                "truncate(99999)",
                "reverse",
                "forceescape",
                "default('b')",
                "tojson(indent=4)",
                "wordcount|string",
                "list|join('ab')",
                "tojson(ensure_ascii=true)",
                "batch(7)|list|string",
            ];
            format!("({of}|{})", one(rng, &filters))
        }
        5 => {
            let methods = [
                "upper()",
                "title()",
                "swapcase()",
                "strip('ba ')",
                "replace('a', 'ab')",
                "zfill(99999)",
                "casefold()",
                "center(999999, 'x')",
                "expandtabs(99999)",
                "lstrip()",
                "join(['a', 'b'])",
                "removeprefix(a)",
                "partition('b')[2]",
                "rsplit(' ', 99)[0]",
                "join(a)",
                "isprintable()|string",
                "istitle()|string",
            ];
            format!("({of}).{}", one(rng, &methods))
        }
        6 => format!("({of})[{}]", one(rng, &["1:", "::-1", ":-1", "::2", "99999:", "-5:"])),
        7 => format!("({of} * {})", one(rng, &["2", "3", "1000", "99999"])),
        8 => format!("({}|join({}))", list(rng, depth - 1), one(rng, &["", "a", "'ab'"])),
        9 => format!("({} % ({of}, {}))", one(rng, &["'%s%r'", "'%9999s%.3s'"]), text(rng, depth - 1)),
        10 => format!("{}.format({of}, {of})", one(rng, &["'{}{}'", "'{0!r}{0}{1}'", "'{:>9999}{:^99}'"])),
        _ => format!("({}|string)", if below(rng, 2) == 0 { list(rng, depth - 1) } else { number(rng, depth - 1) }),
    }
}

fn list(rng: &mut Rng, depth: usize) -> String {
    if depth == 0 {
        return one(rng, &["l", "l", "ns.l", "[3, 1, 2]", "range(99999)|list", "[]", "messages"]).into();
    }
    let of = list(rng, depth - 1);
    match below(rng, 9) {
        0 => format!("({of} + {})", list(rng, depth - 1)),
        1 => format!("({of} * {})", one(rng, &["2", "3", "99"])),
        2 => format!("[{of}, {}]", list(rng, depth - 1)),
        3 => {
            let item = text(rng, depth - 1);
            format!("[{item}, {item}, {item}]")
        }
        4 => format!(
            "({}{})",
            text(rng, depth - 1),
            one(rng, &["|list", ".split()", ".split('a')", ".rsplit(' ', 9)", ".splitlines()"])
        ),
        5 => format!("({of})[{}]", one(rng, &["1:", "::-1", ":-1", "::2"])),
        6 => format!("[{{'k': {of}, 'a': {}}}]", text(rng, depth - 1)),
        _ => {
            let filters = [
                "map('string')|list",
                "map('string')|sort",
                "map('string')|unique|list",
                "reverse|list",
                "select|list",
                "batch(2)|list",
                "slice(7)|list",
                "batch(999, 'x')|list",
                "reject('string')|list",
                "map('tojson')|list",
                "map('string')|map('upper')|list",
                "map('string')|groupby(0)",
                "selectattr('k', 'defined')|list",
                "list",
                "map(attribute='k')|list",
                "map('string')|sort(reverse=true, attribute='0')",
                "rejectattr('a')|list",
            ];
            format!("({of}|{})", one(rng, &filters))
        }
    }
}

fn number(rng: &mut Rng, depth: usize) -> String {
    if depth == 0 {
        return one(rng, &["0", "1", "7", "99999", "1.5", "1e300"]).into();
    }
    match below(rng, 8) {
        0 => format!("({}|length)", text(rng, depth - 1)),
        1 => format!("({}|length)", list(rng, depth - 1)),
        2 => format!("{}.{}({})", text(rng, depth - 1), one(rng, &["find", "rfind", "count"]), text(rng, depth - 1)),
        3 => format!("({} == {})", text(rng, depth - 1), text(rng, depth - 1)),
        4 => format!("({} == {})", list(rng, depth - 1), list(rng, depth - 1)),
        5 => format!("({} in {})", text(rng, depth - 1), text(rng, depth - 1)),
        6 => format!("({} in {})", number(rng, depth - 1), list(rng, depth - 1)),
        _ => format!("({} {} 7)", number(rng, depth - 1), one(rng, &["+", "-", "%", "//", "<"])),
    }
}

/// A value of any kind.
fn value(rng: &mut Rng) -> String {
    let depth = 1 + below(rng, 4);
    match below(rng, 8) {
        0 => expression(rng, depth.min(3)),
        1 | 2 => number(rng, depth),
        3..5 => list(rng, depth),
        _ => text(rng, depth),
    }
}

fn statement(rng: &mut Rng, depth: usize) -> String {
    let value = value(rng);
    let body = |rng: &mut Rng| statements(rng, depth.saturating_sub(1));
    match below(rng, if depth == 0 { 6 } else { 15 }) {
        0 | 1 => format!("{{{{ {value} }}}}"),
        2 => format!("{{% set {} = {value} %}}", one(rng, &["b", "x", "d, x", "ns.d"])),
        3 => format!("{{% set {} = {} %}}", one(rng, &["a", "ns.x"]), text(rng, 2)),
        4 => format!("{{% set {} = {} %}}", one(rng, &["l", "ns.l"]), list(rng, 2)),
        5 => one(
            rng,
            &[
                "{% set ns.x = ns.x ~ ns.x %}",
                "{% set ns.l = [ns.l, ns.l] %}",
                "{% set ns.l = ns.l + ns.l %}",
                "{% set ns.l = {'k': ns.l} %}",
                "{% set ns.x = ns.l|string %}",
                "{% set ns.x %}{{ ns.x }}{{ ns.l }}{% endset %}",
                "{% set ns.d = namespace(x=ns.d) %}",
            ],
        )
        .into(),
        6..9 => {
            let over = ["range(99999)", "range(300)", "a", "l", "ns.l", "[1, [2, [3]]]", "messages"];
            let over = if below(rng, 3) == 0 { list(rng, 2) } else { one(rng, &over).into() };
            let tail = one(rng, &["", "", "", "", "", " recursive", " if x"]);
            format!("{{% for x in {over}{tail} %}}{}{{% endfor %}}", body(rng))
        }
        9 => {
            let elif = format!("{{% elif {} %}}", expression(rng, 1));
            let elif = repeated(rng, &elif);
            format!("{{% if {value} %}}{}{elif}{{% else %}}{}{{% endif %}}", body(rng), body(rng))
        }
        10 => format!("{{% macro m(x, y={value}) %}}{}{{% endmacro %}}{{{{ m(a) }}}}", body(rng)),
        11 => {
            let (open, close) = BLOCKS[below(rng, BLOCKS.len())];
            let n = times(rng, open);
            format!("{}{}{}", open.repeat(n), body(rng), close.repeat(n))
        }
        12 => {
            let body = body(rng);
            repeated(rng, &body)
        }
        13 => {
            let (open, close) = BLOCKS[below(rng, BLOCKS.len())];
            format!("{open}{}{close}", body(rng))
        }
        _ => one(rng, &["{% break %}", "{% continue %}", "text", "{# c #}", "{{ caller() }}", "{{ loop(x) }}"]).into(),
    }
}

fn statements(rng: &mut Rng, depth: usize) -> String {
    (0..1 + below(rng, 3)).map(|_| statement(rng, depth)).collect()
}

/// A template that begins with values, some of them large.
pub(crate) fn template(rng: &mut Rng) -> String {
    let size = ["1", "1000", "100000", "8000000"];
    let (text, list) = (one(rng, &size), one(rng, &["1", "1000", "99999"]));
    let depth = below(rng, 4);
    let mut template = format!(
        "{{% set ns = namespace(x='ab', l=[1], d={{'k': 1}}) %}}{{% set a = 'a b' * {text} %}}\
         {{% set l = range({list})|list %}}{{% macro m(x=0) %}}{{{{ m(x - 1) if x is number and 0 < x < 99 }}}}x{{% endmacro %}}{}",
        statements(rng, depth)
    );
    while template.len() > LONGEST + 1000 {
        template.pop();
    }
    template
}
