//! Guides, one for each subject. Their programs are complete and tested.
//!
//! | to … | read |
//! |---|---|
//! | generate text and train a first model | [`quick_start`] |
//! | use tensors, gradients and layers, coming from PyTorch | [`tensors`] |
//! | train a language model on a text | [`train_gpt`] |
//! | train a classifier, or fine-tune an encoder | [`train_classifier`] |
//! | build an encoder–decoder model from layers | [`translator`] |
//! | train and use word vectors | [`word_vectors`] |
//! | search texts by meaning | [`sentence_search`] |
//! | chat, and constrain text to a form | [`chat`] |
//! | open, convert and save models | [`checkpoints`] |
//! | know what decides the bits, and what takes memory | [`determinism`] |
//! | make it fast, and measure | [`fast`] |
//! | use a model in a server | [`server`] |
//! | build for a container, WebAssembly or Windows | [`platforms`] |
//! | add a model family to the crate | [`adding_a_model`] |
//! | open untrusted files | [`security`] |

// In a guide, `[word vectors]` is a link. Its target in Markdown (`word_vectors.md`) is defined at
// the end of the file; here the same name is defined first, and the first definition counts.
macro_rules! guides {
    ($($(#[$meta:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$meta])*
        #[doc = "[adding a model family]: crate::guides::adding_a_model"]
        #[doc = "[chat and constraints]: crate::guides::chat"]
        #[doc = "[checkpoints]: crate::guides::checkpoints"]
        #[doc = "[performance]: crate::guides::fast"]
        #[doc = "[performance figures]: https://docs.rs/crate/loquat/latest/source/docs/performance.md"]
        #[doc = "[platforms]: crate::guides::platforms"]
        #[doc = "[quick start]: crate::guides::quick_start"]
        #[doc = "[security]: crate::guides::security"]
        #[doc = "[sentence search]: crate::guides::sentence_search"]
        #[doc = "[server]: crate::guides::server"]
        #[doc = "[tensors and gradients]: crate::guides::tensors"]
        #[doc = "[threads, memory and determinism]: crate::guides::determinism"]
        #[doc = "[train your own GPT]: crate::guides::train_gpt"]
        #[doc = "[train your own classifier]: crate::guides::train_classifier"]
        #[doc = "[translator]: crate::guides::translator"]
        #[doc = "[word vectors]: crate::guides::word_vectors"]
        #[doc = ""]
        #[doc = include_str!(concat!("../", $file))]
        pub mod $name {}
    )*};
}

guides! {
    adding_a_model = "docs/adding_a_model.md";
    chat = "docs/chat.md";
    checkpoints = "docs/checkpoints.md";
    determinism = "docs/determinism.md";
    fast = "docs/fast.md";
    platforms = "docs/platforms.md";
    quick_start = "docs/quick_start.md";
    security = "SECURITY.md";
    sentence_search = "docs/sentence_search.md";
    server = "docs/server.md";
    tensors = "docs/tensors.md";
    train_classifier = "docs/train_classifier.md";
    train_gpt = "docs/train_gpt.md";
    translator = "docs/translator.md";
    word_vectors = "docs/word_vectors.md";
    /// The programs of the README are tested too.
    #[cfg(doctest)]
    readme = "README.md";
}
