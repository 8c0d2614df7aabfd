//! Hostile schemas, grammars and regular expressions (nested, chained, wide, malformed) are
//! compiled and followed for some tokens, each on a thread with a stack of 2 MB. None may abort,
//! end the thread, take a second of processor time or 256 MB; and text that a schema accepts must
//! satisfy it. `LOQUAT_FUZZ_SECONDS=600` runs each of the three targets for that long;
//! `LOQUAT_FUZZ_INPUT` is the path of a single input to run, for the target `LOQUAT_FUZZ_TARGET`.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "constraints")]
// A test must install its own allocator to measure allocations.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loquat::Rng;
use loquat::generation::{Grammar, GrammarCompiler, TokenMask, TokenSet};
use serde_json::{Map, Value, json};

struct Watched;

/// Bytes in use, and their maximum.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the block came from `alloc`, that is, from the system allocator.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

/// The largest processor time (in hundredths of a second) and number of bytes of an input.
static MOST: Mutex<(u64, usize)> = Mutex::new((0, 0));

/// The message of the last panic.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

const STACK: usize = 2 << 20;
const BYTES: usize = 256 << 20;
/// The largest processor time of an input, in hundredths of a second.
const TICKS: u64 = 100;
/// The number of inputs of each kind, if no time is given.
const INPUTS: u64 = 150;

/// The processor time of this process in hundredths of a second; 0 on systems that do not report
/// it.
fn ticks() -> u64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0 };
    let behind = stat.rsplit(')').next().unwrap_or_default();
    behind.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum()
}

/// A vocabulary of every byte, and of words of JSON and of the grammars below.
fn compiler() -> GrammarCompiler {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    let words = ["true", "null", "\": ", "\", \"", "{\"", "ab", "é", "\\\"", "\\u00", "12", "0.", "\n  ", "[]", "aaaa"];
    tokens.extend(words.map(|word| word.as_bytes().to_vec()));
    tokens.push(Vec::new());
    GrammarCompiler::from_bytes(tokens).unwrap()
}

const WORDS: usize = 256 + 14;

fn below(rng: &mut Rng, n: usize) -> usize {
    ((f64::from(rng.uniform()) * n as f64) as usize).min(n.saturating_sub(1))
}

fn one<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[below(rng, from.len())]
}

/// Returns a small or, rarely, a large number.
fn count(rng: &mut Rng, small: usize, large: usize) -> usize {
    if rng.uniform() < 0.04 { below(rng, large) } else { below(rng, small) }
}

/// Follows a constraint for some tokens; a text that ends must satisfy it.
fn follow(mut grammar: Grammar, rng: &mut Rng) {
    let mut set = TokenSet::new(WORDS + 1);
    for _ in 0..24 {
        set.clear();
        if grammar.allow(&mut set).is_err() {
            return;
        }
        let allowed: Vec<u32> = set.iter().collect();
        if grammar.may_end() && (allowed.is_empty() || rng.uniform() < 0.3) {
            grammar.finish().unwrap();
            return;
        }
        if allowed.is_empty() || grammar.accept(allowed[below(rng, allowed.len())]).is_err() {
            return;
        }
    }
}

/// Runs one input within the limits.
fn run(name: &str, input: &str, work: impl FnOnce() + Send) {
    let failing: PathBuf = std::env::temp_dir().join(format!("loquat-failing-{name}-{}", std::process::id()));
    // The input is kept until it has passed.
    std::fs::write(&failing, input).unwrap();
    let (live, before) = (LIVE.load(Ordering::Relaxed), ticks());
    PEAK.store(live, Ordering::Relaxed);
    let ran = std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).unwrap().join()
    });
    let (bytes, ticks) = (PEAK.load(Ordering::Relaxed) - live, ticks() - before);
    let mut most = MOST.lock().unwrap();
    *most = (most.0.max(ticks), most.1.max(bytes));
    drop(most);
    let panic = PANIC.lock().unwrap().take();
    if let (Ok(()), Some(panic)) = (&ran, &panic) {
        // A panic of the constraint engine, which it has caught: an error of the constraint.
        eprintln!("{name}: the engine gave up: {panic}");
    }
    assert!(ran.is_ok(), "{name}: {} over {}", panic.unwrap_or_default(), failing.display());
    assert!(bytes <= BYTES, "{name}: {bytes} bytes for {}", failing.display());
    assert!(ticks <= TICKS, "{name}: {ticks}/100 s for {}", failing.display());
    std::fs::remove_file(failing).unwrap();
}

const PATTERNS: [&str; 18] = [
    "^[^\"]*$",
    "^[^\\\\]*$",
    "^[^<>&\"']{1,20}$",
    "a",
    "^(a|b)*a(a|b){30}$",
    "^\\w+@\\w+\\.com$",
    "[^\\n]",
    "^.{0,10}$",
    "(",
    "^(([a-z]+)+)+$",
    "^\\d{3}-\\d{4}$",
    "^[\\x00-\\x1f]$",
    "(?<stop>a)b",
    "\\p{L}{2,900}",
    "^$",
    "^[^a]|b$",
    "(?i)straße",
    "^(a{1,900}b){1,900}$",
];

const TEXTS: [&str; 9] = ["a", "b", "c", "", "\"", "\\", "é", "a/b~c", "\u{1}"];

fn number(rng: &mut Rng) -> Value {
    let numbers = [
        json!(0),
        json!(1),
        json!(-5),
        json!(2.5),
        json!(1e308),
        json!(-1e-300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.1),
    ];
    numbers[below(rng, numbers.len())].clone()
}

/// Any JSON.
fn anything(rng: &mut Rng, depth: usize) -> Value {
    match below(rng, 8) {
        0 => Value::Null,
        1 => json!(rng.uniform() < 0.5),
        2 => number(rng),
        3 => json!(one(rng, &TEXTS)),
        4 => json!("é".repeat(count(rng, 5, 300))),
        5 if depth > 0 => (0..count(rng, 4, 50)).map(|_| anything(rng, depth - 1)).collect(),
        6 if depth > 0 => {
            (0..count(rng, 4, 50)).map(|i| (format!("k{i}"), anything(rng, depth - 1))).collect::<Map<_, _>>().into()
        }
        _ => number(rng),
    }
}

/// A schema, not always valid.
fn schema(rng: &mut Rng, depth: usize) -> Value {
    let mut keys = Map::new();
    let inner = |rng: &mut Rng| {
        if depth == 0 { json!({"type": one(rng, &["integer", "string", "null"])}) } else { schema(rng, depth - 1) }
    };
    for _ in 0..1 + below(rng, 3) {
        let (key, value) = match below(rng, 24) {
            0 | 1 => ("type", json!(one(rng, &["object", "array", "string", "integer", "number", "boolean", "null"]))),
            2 => ("type", json!([one(rng, &["object", "string"]), one(rng, &["array", "null"])])),
            3 | 4 => {
                let n = count(rng, 4, 1500);
                let one = inner(rng);
                let of = |rng: &mut Rng, i: usize| if i < 3 { inner(rng) } else { one.clone() };
                let named: Map<String, Value> =
                    (0..n).map(|i| (format!("{}{i}", self::one(rng, &TEXTS)), of(rng, i))).collect();
                ("properties", named.into())
            }
            5 => ("required", (0..count(rng, 3, 800)).map(|i| format!("{}{i}", one(rng, &TEXTS))).collect()),
            6 => ("additionalProperties", if rng.uniform() < 0.5 { json!(false) } else { inner(rng) }),
            7 => {
                let named: Map<String, Value> =
                    (0..count(rng, 3, 30)).map(|_| (one(rng, &PATTERNS).to_string(), inner(rng))).collect();
                ("patternProperties", named.into())
            }
            8 => ("items", inner(rng)),
            9 => {
                ("prefixItems", (0..count(rng, 4, 400)).map(|_| json!({"type": "null"})).chain([inner(rng)]).collect())
            }
            10 => (
                one(rng, &["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"]),
                json!(count(rng, 6, 1 << 24)),
            ),
            11 => {
                (one(rng, &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]), number(rng))
            }
            12 | 13 => ("pattern", json!(one(rng, &PATTERNS))),
            14 => ("format", json!(one(rng, &["date-time", "email", "uri", "ipv6", "uuid", "duration", "nothing"]))),
            15 => (
                "enum",
                (0..count(rng, 4, 3000))
                    .map(|i| if i < 9 { anything(rng, 2) } else { json!(format!("v{i}")) })
                    .collect(),
            ),
            16 => ("const", anything(rng, 2)),
            17 => ("anyOf", (0..count(rng, 3, 300)).map(|_| inner(rng)).collect()),
            18 => ("allOf", (0..count(rng, 3, 20)).map(|_| inner(rng)).collect()),
            19 => (
                "oneOf",
                (0..count(rng, 3, 200))
                    .map(|i| json!({"properties": {"k": {"const": i}}, "required": ["k"]}))
                    .chain([inner(rng)])
                    .collect(),
            ),
            20 | 21 => ("$ref", json!(format!("#/$defs/d{}", below(rng, 6)))),
            22 => ("$ref", json!(one(rng, &["#", "#/", "#/$defs", "#/items", "other", "#/properties/a0"]))),
            // Inconsistent.
            _ => (
                one(
                    rng,
                    &["type", "properties", "items", "enum", "required", "pattern", "minimum", "anyOf", "$ref", "not"],
                ),
                anything(rng, 2),
            ),
        };
        keys.insert(key.to_string(), value);
    }
    keys.into()
}

fn whole_schema(rng: &mut Rng) -> Value {
    let mut root = match below(rng, 6) {
        // A chain of definitions.
        0 => {
            let n = count(rng, 120, 2000);
            let kind = below(rng, 4);
            let link = |i: usize| {
                let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
                match kind {
                    0 => next,
                    1 => json!({"type": "object", "properties": {"a": next}, "required": ["a"]}),
                    2 => json!({"allOf": [next, {"type": "object", "properties": {"a": {"type": "null"}}}]}),
                    _ => json!({"anyOf": [{"type": "array", "items": next}, {"type": "null"}]}),
                }
            };
            let mut defs: Map<String, Value> = (0..n).map(|i| (format!("d{i}"), link(i))).collect();
            defs.insert(format!("d{n}"), schema(rng, 1));
            return json!({"$ref": "#/$defs/d0", "$defs": defs});
        }
        // Nested.
        1 => {
            let kind = below(rng, 4);
            let mut nested = schema(rng, 1);
            for _ in 0..count(rng, 100, 600) {
                nested = match kind {
                    0 => json!({"type": "array", "items": nested}),
                    1 => json!({"properties": {"a": nested}, "required": ["a"]}),
                    2 => json!({"anyOf": [nested, {"type": "null"}]}),
                    _ => json!({"allOf": [nested]}),
                };
            }
            nested
        }
        // Products.
        2 => {
            let of = |rng: &mut Rng| -> Value { (0..count(rng, 6, 60)).map(|_| schema(rng, 1)).collect() };
            json!({"allOf": [{"anyOf": of(rng)}, {"anyOf": of(rng)}, schema(rng, 1)]})
        }
        _ => schema(rng, 3),
    };
    if let Value::Object(keys) = &mut root {
        let defs: Map<String, Value> = (0..6).map(|i| (format!("d{i}"), schema(rng, 1))).collect();
        keys.insert("$defs".into(), defs.into());
    }
    root
}

fn atom(rng: &mut Rng, rules: usize) -> String {
    match below(rng, 12) {
        0..3 => format!("r{}", below(rng, rules + 1)),
        3 | 4 => format!("T{}", below(rng, 4)),
        5 => format!("{:?}", one(rng, &["a", "b", "ab", "x"])),
        6 => format!("/{}/", one(rng, &PATTERNS).replace('/', "\\/")),
        7 => format!("({} | {})", atom(rng, rules), atom(rng, rules)),
        8 => "\"a\"..\"f\"".into(),
        9 => format!("%json {}", schema(rng, 1)),
        10 => format!("%regex {{\"substring_words\": \"a b c {}\"}}", "d ".repeat(count(rng, 3, 2000))),
        _ => format!("{}{}", atom(rng, rules), one(rng, &["*", "+", "?", "{2,5}", "{0,100000000}", "~3", "{3}"])),
    }
}

fn whole_grammar(rng: &mut Rng) -> String {
    let mut text = String::new();
    let rules = count(rng, 5, 300);
    match below(rng, 5) {
        0 => {
            let (n, letter) = (count(rng, 120, 2000), one(rng, &["r", "T"]));
            text += &format!("start: {letter}0\n");
            text.extend((0..n).map(|i| format!("{letter}{i}: \"a\" {letter}{}\n", i + 1)));
            text += &format!("{letter}{n}: \"x\"\n");
        }
        1 => {
            let n = count(rng, 60, 2000);
            text += &format!("start: {}\"a\"{}\n", "(".repeat(n), ")".repeat(n));
        }
        2 => {
            let n = count(rng, 60, 5000);
            text += &format!("start: {}\n", (0..n).map(|i| format!("\"a{i}\" r0?")).collect::<Vec<_>>().join(" | "));
            text += "r0: start \"b\" | \"c\"\n";
        }
        _ => text += &format!("start: {} {}\n", atom(rng, rules), atom(rng, rules)),
    }
    for i in 0..=rules {
        let attributes = one(rng, &["", "", "", "[max_tokens=5]", "[stop=\"x\"]", "[lazy]", "[temperature=0.5]", ".3"]);
        text += &format!("r{i}{attributes}: {} {}", atom(rng, rules), atom(rng, rules));
        text += &format!("\n  | {}\n", atom(rng, rules));
    }
    (0..4).for_each(|i| text += &format!("T{i}: /{}/ \"t\"\n", one(rng, &["[a-z]+", "a{1,50}", "[^\"]", "(a|b)*c"])));
    text += one(
        rng,
        &[
            "",
            "%ignore / /\n",
            "%import common.INT\n",
            "%llguidance {\"no_forcing\": true}\n",
            "x: %lark { start: \"a\" }\n",
        ],
    );
    // Corruption.
    while rng.uniform() < 0.3 {
        let mut chars: Vec<char> = text.chars().collect();
        let at = below(rng, chars.len());
        match below(rng, 3) {
            0 => chars.truncate(at),
            1 => drop(chars.drain(at..(at + 9).min(chars.len()))),
            _ => drop(chars.splice(
                at..at,
                one(rng, &["(", ")", "\"", "/", ":", "::", "|", "%json", "{", "}", "é", "\n", "@a", "<x>"]).chars(),
            )),
        }
        text = chars.into_iter().collect();
        if text.is_empty() {
            break;
        }
    }
    text
}

fn whole_expression(rng: &mut Rng) -> String {
    match below(rng, 6) {
        0 => format!("{}a{}", "(".repeat(count(rng, 200, 3000)), ")".repeat(count(rng, 200, 3000))),
        1 => (0..count(rng, 40, 8000)).map(|i| format!("word{i}")).collect::<Vec<_>>().join("|"),
        2 => format!("(a|b)*a(a|b){{{}}}", count(rng, 30, 900)),
        3 => format!("{}{}", one(rng, &PATTERNS), "{1,30}".repeat(below(rng, 4))),
        4 => (0..count(rng, 5, 300)).map(|_| one(rng, &PATTERNS)).collect(),
        _ => (0..count(rng, 20, 2000))
            .map(|_| one(rng, &["a", "b", "(", ")", "[", "]", "|", "*", "+", "?", "\\", "^", "$", ".", "é", "/", "-"]))
            .collect(),
    }
}

#[test]
fn hostile_constraints_stay_within_their_budgets() {
    let compiler = compiler();
    let input = std::env::var("LOQUAT_FUZZ_INPUT").ok().map(|path| std::fs::read_to_string(path).unwrap());
    let followed = |made: loquat::Result<Grammar>, rng: &mut Rng| match made {
        Ok(grammar) => follow(grammar, rng),
        Err(error) if input.is_some() => eprintln!("refused: {error}"),
        Err(_) => {}
    };
    let seconds: Option<u64> = std::env::var("LOQUAT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let only = std::env::var("LOQUAT_FUZZ_TARGET").ok();
    let first = std::env::var("LOQUAT_FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    // The engine sets its own panic hook when it first runs; the panics that it catches should be
    // reported.
    compiler.regex("a").unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| *PANIC.lock().unwrap() = Some(panic.to_string())));
    let fuzz = |name: &str, each: &dyn Fn(&mut Rng)| {
        if only.as_deref().is_some_and(|only| only != name) {
            return;
        }
        let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut runs = 0;
        *MOST.lock().unwrap() = (0, 0);
        while until.map_or(runs < if input.is_some() { 1 } else { INPUTS }, |until| Instant::now() < until) {
            each(&mut Rng::stream(first, runs));
            runs += 1;
        }
        let (ticks, bytes) = *MOST.lock().unwrap();
        eprintln!("{name}: {runs} inputs, at most {ticks}/100 s and {} MB", bytes >> 20);
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fuzz("schema", &|rng| {
            let schema = input.as_ref().map_or_else(|| whole_schema(rng), |text| serde_json::from_str(text).unwrap());
            run("schema", &schema.to_string(), || {
                followed(compiler.json_schema(&schema), rng);
            });
        });
        fuzz("grammar", &|rng| {
            let text = input.clone().unwrap_or_else(|| whole_grammar(rng));
            run("grammar", &text.clone(), || {
                followed(compiler.grammar(&text), rng);
            });
        });
        fuzz("regex", &|rng| {
            let text = input.clone().unwrap_or_else(|| whole_expression(rng));
            run("regex", &text.clone(), || {
                followed(compiler.regex(&text), rng);
            });
        });
    }));
    std::panic::set_hook(hook);
    if result.is_err() {
        panic!("{}", PANIC.lock().unwrap().take().unwrap_or_default());
    }
}
