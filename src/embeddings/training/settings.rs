//! Settings that Word2Vec and GloVe share.

/// Setters and checks of the shared settings.
macro_rules! shared_settings {
    () => {
        /// Sets the length of the vectors. Default: 100.
        pub fn dim(mut self, dim: usize) -> Self {
            self.dim = dim;
            self
        }

        /// Sets the smallest count of words that get a vector. Default: 5.
        pub fn min_count(mut self, count: u64) -> Self {
            self.min_count = count;
            self
        }

        /// Sets the largest number of words that get a vector, most frequent first. Default: no
        /// limit.
        pub fn max_words(mut self, n: usize) -> Self {
            self.max_words = Some(n);
            self
        }

        /// Sets the largest number of distinct words while counting, about 50 bytes each. If there
        /// are more, the rarest so far are dropped, as in the original tool, so memory does not
        /// grow with the text. Default: 20 million.
        pub fn max_counted_words(mut self, n: usize) -> Self {
            self.max_counted = n;
            self
        }

        /// Sets the number of threads, in a pool of their own. Default: the caller's rayon pool.
        pub fn threads(mut self, threads: usize) -> Self {
            self.threads = Some(threads);
            self
        }

        /// Sets a checkpoint file, which is replaced atomically every `every` and after each epoch.
        /// A run resumes from it by the `resume` of its model.
        pub fn checkpoint(mut self, path: impl AsRef<std::path::Path>, every: std::time::Duration) -> Self {
            self.checkpoint = Some((path.as_ref().into(), every));
            self
        }

        /// Trains on a text file, one sentence per line.
        ///
        /// # Errors
        /// Same as [`Self::train`].
        pub fn train_file(&self, path: impl AsRef<std::path::Path>) -> crate::Result<crate::WordVectors> {
            self.train(&crate::embeddings::TrainingText::corpus(&crate::text::Corpus::open(path)?))
        }

        /// Counts the words of a text that get a vector.
        fn vocabulary(
            &self,
            text: &crate::embeddings::TrainingText<'_>,
        ) -> crate::Result<crate::embeddings::training::vocabulary::TrainingVocabulary> {
            use crate::embeddings::training::vocabulary::{Keep, TrainingVocabulary};
            let keep = Keep { min_count: self.min_count, limit: self.max_words, counted: self.max_counted };
            TrainingVocabulary::of(text, keep)?.of_several(text)
        }

        /// Checks the shared settings.
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
