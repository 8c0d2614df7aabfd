//! Settings that Word2Vec and GloVe share.

/// The methods that set them and check them.
macro_rules! shared_settings {
    () => {
        /// The length of the vectors.
        pub fn dim(mut self, dim: usize) -> Self {
            self.dim = dim;
            self
        }

        /// Leaves out words that stand less often.
        pub fn min_count(mut self, count: u64) -> Self {
            self.min_count = count;
            self
        }

        /// Keeps only the `n` most frequent words.
        pub fn max_words(mut self, n: usize) -> Self {
            self.max_words = Some(n);
            self
        }

        /// The most different words that are held while counting, about 50 bytes each. Default: 20 million. When there are
        /// more, the rarest so far are forgotten, as the original tool does, so memory does not grow with the text.
        pub fn max_counted_words(mut self, n: usize) -> Self {
            self.max_counted = n;
            self
        }

        /// Works on so many threads of its own; without it, on those of the caller's rayon pool.
        pub fn threads(mut self, threads: usize) -> Self {
            self.threads = Some(threads);
            self
        }

        /// Writes what is needed to go on into the file `path` while training, whenever so much time has passed and after
        /// each epoch: see the model's `resume`. The file is either the old one or the whole new one.
        pub fn checkpoint(mut self, path: impl AsRef<std::path::Path>, every: std::time::Duration) -> Self {
            self.checkpoint = Some((path.as_ref().into(), every));
            self
        }

        /// Trains on a text file, one sentence a line.
        ///
        /// # Errors
        /// Same as [`Self::train`].
        pub fn train_file(&self, path: impl AsRef<std::path::Path>) -> crate::Result<crate::WordVectors> {
            self.train(&crate::embeddings::TrainingText::corpus(&crate::text::Corpus::open(path)?))
        }

        /// The words of a text that are trained.
        fn vocabulary(
            &self,
            text: &crate::embeddings::TrainingText<'_>,
        ) -> crate::Result<crate::embeddings::training::vocabulary::TrainingVocabulary> {
            use crate::embeddings::training::vocabulary::{Keep, TrainingVocabulary};
            let keep = Keep { min_count: self.min_count, limit: self.max_words, counted: self.max_counted };
            TrainingVocabulary::of(text, keep)?.of_several(text)
        }

        /// Checks the settings that both have.
        fn check_shared(&self) -> crate::Result<()> {
            crate::kernels::simd::check_environment()?;
            let above_zero = [
                ("dim", self.dim),
                ("window", self.window),
                ("epochs", self.epochs),
                ("threads", self.threads.unwrap_or(1)),
                ("max_words", self.max_words.unwrap_or(1)),
                ("max_counted_words", self.max_counted),
            ];
            for (name, value) in above_zero {
                if value == 0 {
                    return Err(crate::Error::argument(name, "a number above 0", value));
                }
            }
            if self.window > 10_000 {
                return Err(crate::Error::argument("window", "at most 10000 words", self.window));
            }
            Ok(())
        }
    };
}
pub(crate) use shared_settings;
