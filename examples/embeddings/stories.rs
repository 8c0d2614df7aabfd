//! The embedded corpus: small stories made from a seed, so that the example needs no file.

use loquat::Rng;

const PEOPLE: [(&str, &str, &str); 6] = [
    ("king", "he", "man"),
    ("queen", "she", "woman"),
    ("boy", "he", "child"),
    ("girl", "she", "child"),
    ("uncle", "he", "man"),
    ("aunt", "she", "woman"),
];
const ANIMALS: [(&str, &str, &str); 6] = [
    ("cat", "milk", "purrs"),
    ("dog", "bones", "barks"),
    ("cow", "grass", "moos"),
    ("horse", "hay", "neighs"),
    ("duck", "bread", "quacks"),
    ("mouse", "cheese", "squeaks"),
];
const PLACES: [(&str, &str); 5] =
    [("kitchen", "house"), ("garden", "house"), ("river", "forest"), ("meadow", "forest"), ("market", "town")];
const COLOURS: [&str; 5] = ["red", "green", "blue", "white", "black"];
const MOODS: [&str; 4] = ["happy", "sad", "angry", "tired"];

/// 20 000 sentences, the same each time.
pub(crate) fn sentences() -> impl Iterator<Item = Vec<String>> + Send {
    let mut rng = Rng::seed(2024);
    (0..20_000).map(move |_| {
        let (who, pronoun, kind) = PEOPLE[rng.below(PEOPLE.len())];
        let (animal, food, sound) = ANIMALS[rng.below(ANIMALS.len())];
        let (place, area) = PLACES[rng.below(PLACES.len())];
        let colour = COLOURS[rng.below(COLOURS.len())];
        let mood = MOODS[rng.below(MOODS.len())];
        let line = match rng.below(6) {
            0 => format!("the {who} gives {food} to the {animal} and {pronoun} is {mood}"),
            1 => format!("in the {place} of the {area} a {colour} {animal} eats {food} and {sound}"),
            2 => format!("the {animal} {sound} when the {who} comes into the {place}"),
            3 => format!("a {mood} {kind} like the {who} walks from the {place} to the {area}"),
            4 => format!("{pronoun} is the {who} and {pronoun} has a {colour} {animal}"),
            _ => format!("the {colour} {animal} finds {food} near the {place}"),
        };
        line.split(' ').map(String::from).collect()
    })
}
