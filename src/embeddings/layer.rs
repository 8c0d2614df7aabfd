//! From word vectors to the first layer of a model.

use ndarray::Array2;

use super::WordVectors;
#[cfg(feature = "tokenizers")]
use crate::{Result, Tensor, nn::Embedding, nn::Parameter, text::Tokenizer};

impl WordVectors {
    /// A matrix of one row for each of `tokens` (the vocabulary of a tokenizer, in its order), to initialise an
    /// embedding layer with, and the numbers of the tokens that have no vector. Their rows are zero.
    ///
    /// # Shapes
    /// The matrix: `[tokens, dim]`.
    pub fn embedding_matrix<S: AsRef<str>>(&self, tokens: impl IntoIterator<Item = S>) -> (Array2<f32>, Vec<usize>) {
        let (mut all, mut missing, mut n) = (Vec::new(), Vec::new(), 0);
        for token in tokens {
            match self.vector(token.as_ref()) {
                Some(v) => all.extend_from_slice(&v),
                None => {
                    missing.push(n);
                    all.resize(all.len() + self.dim, 0.0);
                }
            }
            n += 1;
        }
        (Array2::from_shape_vec((n, self.dim), all).expect("every row has `dim` numbers"), missing)
    }

    /// An embedding layer with a row for each token of a tokenizer, in the order of its ids, and the tokens that have no vector:
    /// their rows are zero. A token is looked up by its text without white space around it, then by its name.
    ///
    /// ```
    /// use loquat::text::TokenizerTrainer;
    /// use loquat::{IdTensor, WordVectors};
    /// use ndarray::array;
    ///
    /// let tokenizer = TokenizerTrainer::word_level().train(["cats purr", "dogs bark"])?;
    /// let vectors = WordVectors::new(["cats", "dogs"], array![[1.0, 2.0], [3.0, 4.0]])?;
    /// let (layer, missing) = vectors.embedding_layer(&tokenizer)?;
    /// let cats = tokenizer.token_to_id("cats").expect("it was in the text");
    /// assert_eq!(layer.forward(&IdTensor::sequence(&[cats]))?.to_vec(), [1.0, 2.0]);
    /// assert!(missing.contains(&"bark".to_string()));
    /// # Ok::<(), loquat::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Tokenizer::decode`].
    #[cfg(feature = "tokenizers")]
    pub fn embedding_layer(&self, tokenizer: &Tokenizer) -> Result<(Embedding, Vec<String>)> {
        let names: Vec<String> =
            (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
        let mut words = Vec::with_capacity(names.len());
        for (id, name) in names.iter().enumerate() {
            let text = tokenizer.decode_with_special(&[id as u32])?;
            let word = text.trim();
            words.push(if self.contains(word) { word.to_string() } else { name.clone() });
        }
        let (matrix, missing) = self.embedding_matrix(&words);
        let weight = Parameter::new(Tensor::from_vec(matrix.into_raw_vec_and_offset().0, &[names.len(), self.dim()])?);
        Ok((Embedding { weight, padding_idx: None }, missing.into_iter().map(|id| names[id].clone()).collect()))
    }
}
