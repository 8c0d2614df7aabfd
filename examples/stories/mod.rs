//! A generator of small stories in simple English, and a parser for their grammar.
//!
//! Both use one table of rules: [`story`] expands it, [`is_grammatical`] parses with it. So the
//! share of grammatical sentences measures what a model has learned of the language.

use loquat::Rng;

/// Symbols and their alternatives: words, and further symbols marked with `$`.
const RULES: &[(&str, &[&str])] = &[
    (
        "opening",
        &[
            "Once there was a $adjective $animal named $hero .",
            "Long ago a $adjective $animal named $hero lived in the $place .",
            "In the $place there lived a $adjective $animal named $hero .",
        ],
    ),
    (
        "middle",
        &[
            "One $day , $hero went to the $place to $seek a $thing .",
            "$hero saw a $adjective $thing $near the $spot .",
            "Then $hero met a $animal named $friend near the $spot .",
            "\" $speech , \" said $hero .",
            "\" $question ? \" asked $friend .",
            "$hero and $friend $together in the $place .",
            "$hero was $feeling because the $thing was $state .",
            "They looked $near the $spot and found a $adjective $thing .",
            "$friend gave the $thing to $hero , and $hero was $feeling .",
            "The $thing was too $state , so $hero asked $friend for help .",
            "$hero $action the $thing and $action it again .",
        ],
    ),
    (
        "ending",
        &[
            "That night , $hero dreamed of a $adjective $thing .",
            "At last $hero and $friend went home and were $feeling .",
            "From that day on , $hero and $friend were best friends .",
            "And so $hero slept $near the $spot until the $day .",
        ],
    ),
    ("adjective", &["small", "big", "red", "old", "kind", "quiet", "brave", "funny", "bright", "soft"]),
    ("animal", &["cat", "dog", "fox", "bear", "mouse", "frog", "bird", "rabbit", "duck", "horse"]),
    ("name", &["Tom", "Anna", "Ben", "Lily", "Max", "Mia", "Sam", "Ruby", "Leo", "Nina"]),
    ("hero", &["$name"]),
    ("friend", &["$name"]),
    ("place", &["forest", "garden", "village", "park", "valley", "barn"]),
    ("spot", &["tree", "river", "hill", "house", "bridge", "stone"]),
    ("thing", &["ball", "apple", "hat", "book", "flower", "cake", "shell", "key", "lamp", "leaf"]),
    ("day", &["day", "morning", "evening", "summer", "winter"]),
    ("seek", &["find", "buy", "look for"]),
    ("near", &["under", "near", "behind"]),
    ("speech", &["I like this $thing", "We must find the $thing", "You are my friend", "Let us go to the $place"]),
    ("question", &["Where is the $thing", "May I see the $thing", "Will you come to the $place", "Who are you"]),
    ("together", &["played", "danced", "sang", "sat down", "ran"]),
    ("feeling", &["happy", "sad", "very happy", "a little afraid", "proud", "tired"]),
    ("state", &["heavy", "lost", "wet", "gone", "broken"]),
    ("action", &["touched", "painted", "carried", "washed", "dropped"]),
];

fn rule(symbol: &str) -> &'static [&'static str] {
    RULES.iter().find(|(name, _)| *name == symbol).map_or(&[], |(_, forms)| forms)
}

/// The characters of a story, whose names stay the same.
struct Cast {
    hero: &'static str,
    friend: &'static str,
}

fn expand(form: &str, cast: &Cast, rng: &mut Rng, words: &mut Vec<String>) {
    for word in form.split(' ') {
        match word.strip_prefix('$') {
            None => words.push(word.to_string()),
            Some("hero") => words.push(cast.hero.to_string()),
            Some("friend") => words.push(cast.friend.to_string()),
            Some(symbol) => {
                let forms = rule(symbol);
                expand(forms[rng.below(forms.len())], cast, rng, words);
            }
        }
    }
}

/// Joins words and punctuation: `" Hello , " said Tom .` becomes `"Hello," said Tom.`
fn spell(words: &[String]) -> String {
    let mut text = String::new();
    let mut quoted = false;
    for word in words {
        let closes = matches!(word.as_str(), "." | "," | "?") || (word == "\"" && quoted);
        if !(text.is_empty() || closes || text.ends_with('"') && quoted) {
            text.push(' ');
        }
        text.push_str(word);
        if word == "\"" {
            quoted = !quoted;
        }
    }
    text
}

/// Returns a story of 7 to 11 sentences on one line.
pub(crate) fn story(rng: &mut Rng) -> String {
    let names = rule("name");
    let hero = rng.below(names.len());
    let friend = (hero + 1 + rng.below(names.len() - 1)) % names.len();
    let cast = Cast { hero: names[hero], friend: names[friend] };
    let count = 5 + rng.below(5);
    let kinds = std::iter::once("opening").chain(std::iter::repeat_n("middle", count)).chain(["ending"]);
    let sentences: Vec<String> = kinds
        .map(|kind| {
            let forms = rule(kind);
            let mut words = Vec::new();
            expand(forms[rng.below(forms.len())], &cast, rng, &mut words);
            spell(&words)
        })
        .collect();
    sentences.join(" ")
}

/// Returns `count` stories, one per line.
pub(crate) fn corpus(count: usize, seed: u64) -> String {
    let mut rng = Rng::seed(seed);
    (0..count).map(|_| story(&mut rng) + "\n").collect()
}

/// Returns the indices in `words` at which `form` can end if it begins at `start`.
fn ends(form: &str, words: &[String], start: usize) -> Vec<usize> {
    let mut places = vec![start];
    for part in form.split(' ') {
        let mut next = Vec::new();
        for &at in &places {
            match part.strip_prefix('$') {
                None if words.get(at).is_some_and(|w| w == part) => next.push(at + 1),
                None => {}
                Some(symbol) => next.extend(rule(symbol).iter().flat_map(|form| ends(form, words, at))),
            }
        }
        next.sort_unstable();
        next.dedup();
        places = next;
    }
    places
}

/// Returns whether the rules can produce `sentence`, with the same punctuation and spaces.
pub(crate) fn is_grammatical(sentence: &str) -> bool {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in sentence.trim().chars() {
        if c.is_alphabetic() {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c != ' ' {
            words.push(c.to_string());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    let kinds = ["opening", "middle", "ending"];
    let parses = kinds.iter().flat_map(|kind| rule(kind)).any(|form| ends(form, &words, 0).contains(&words.len()));
    parses && spell(&words) == sentence.trim()
}

/// Splits a text into sentences, each of which ends with a full stop.
pub(crate) fn sentences(text: &str) -> Vec<&str> {
    text.split_inclusive('.').map(str::trim).filter(|s| s.ends_with('.')).collect()
}
