//! Embedding layers from word vectors.

use ndarray::Array2;

use super::WordVectors;
#[cfg(feature = "tokenizers")]
use crate::{Result, Rng, Tensor, nn::Embedding, nn::Parameter, text::Tokenizer};

impl WordVectors {
    /// Returns a matrix with one row for each of `tokens` (the vocabulary of a tokenizer, in its
    /// order), for an embedding layer, and the indices of the tokens without a vector. Their rows
    /// are zero.
    ///
    /// # Shapes
    /// The matrix: `[tokens, dim]`.
    ///
    /// # Examples
    /// ```
    /// use loquat::WordVectors;
    /// use ndarray::array;
    ///
    /// let vectors = WordVectors::new(["cats"], array![[1.0, 2.0]])?;
    /// let (matrix, missing) = vectors.embedding_matrix(["[PAD]", "cats"]);
    /// assert_eq!(matrix, array![[0.0, 0.0], [1.0, 2.0]]);
    /// assert_eq!(missing, [0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
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

    /// Returns an embedding layer with a row for each token of a tokenizer, in the order of its
    /// ids, and the tokens without a vector. Their rows are zero;
    /// [`WordVectors::embedding_layer_init`] makes them random. A token is looked up by its text
    /// without surrounding white space, then by its name.
    ///
    /// # Errors
    /// Same as [`Tokenizer::decode`].
    ///
    /// # Examples
    /// ```
    /// use loquat::text::TokenizerTrainer;
    /// use loquat::{IdTensor, WordVectors};
    /// use loquat::ndarray::array;
    ///
    /// let tokenizer = TokenizerTrainer::word_level().train(["cats purr", "dogs bark"])?;
    /// let vectors = WordVectors::new(["cats", "dogs"], array![[1.0, 2.0], [3.0, 4.0]])?;
    /// let (layer, missing) = vectors.embedding_layer(&tokenizer)?;
    /// let cats = tokenizer.token_to_id("cats").expect("the word is in the text");
    /// assert_eq!(layer.forward(&IdTensor::sequence(&[cats]))?.to_vec(), [1.0, 2.0]);
    /// assert!(missing.contains(&"bark".to_string()));
    /// # Ok::<(), loquat::Error>(())
    /// ```
    #[cfg(feature = "tokenizers")]
    pub fn embedding_layer(&self, tokenizer: &Tokenizer) -> Result<(Embedding, Vec<String>)> {
        self.layer(tokenizer, |_, _| ())
    }

    /// Same as [`WordVectors::embedding_layer`], with random rows for the tokens without a vector,
    /// so that training can tell them apart.
    ///
    /// Their numbers are drawn from a normal distribution with mean 0 and the root mean square of
    /// the other rows as standard deviation (1 if no token has a vector), in the order of the ids.
    ///
    /// # Errors
    /// Same as [`Tokenizer::decode`].
    ///
    /// # Examples
    /// ```
    /// use loquat::text::TokenizerTrainer;
    /// use loquat::{IdTensor, Rng, WordVectors};
    /// use ndarray::array;
    ///
    /// let tokenizer = TokenizerTrainer::word_level().train(["cats purr"])?;
    /// let vectors = WordVectors::new(["cats"], array![[1.0, 2.0]])?;
    /// let (layer, missing) = vectors.embedding_layer_init(&tokenizer, &mut Rng::seed(1))?;
    /// let purr = tokenizer.token_to_id("purr").expect("the word is in the text");
    /// assert!(missing.contains(&"purr".to_string()));
    /// assert_ne!(layer.forward(&IdTensor::sequence(&[purr]))?.to_vec(), [0.0, 0.0]);
    /// # Ok::<(), loquat::Error>(())
    /// ```
    #[cfg(feature = "tokenizers")]
    pub fn embedding_layer_init(&self, tokenizer: &Tokenizer, rng: &mut Rng) -> Result<(Embedding, Vec<String>)> {
        self.layer(tokenizer, |numbers, missing| {
            let squares: f64 = numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let n = numbers.len() - missing.len() * self.dim;
            let std = if n == 0 { 1.0 } else { (squares / n as f64).sqrt() as f32 };
            for &id in missing {
                numbers[id * self.dim..(id + 1) * self.dim].fill_with(|| std * rng.normal());
            }
        })
    }

    /// Returns a layer and the tokens without a vector. `fill` receives the numbers of the layer
    /// and the ids of those tokens.
    #[cfg(feature = "tokenizers")]
    fn layer(
        &self,
        tokenizer: &Tokenizer,
        fill: impl FnOnce(&mut [f32], &[usize]),
    ) -> Result<(Embedding, Vec<String>)> {
        let names: Vec<String> =
            (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
        let mut words = Vec::with_capacity(names.len());
        for (id, name) in names.iter().enumerate() {
            let text = tokenizer.decode_with_special(&[id as u32])?;
            let word = text.trim();
            words.push(if self.contains(word) { word.to_string() } else { name.clone() });
        }
        let (matrix, missing) = self.embedding_matrix(&words);
        let mut numbers = matrix.into_raw_vec_and_offset().0;
        fill(&mut numbers, &missing);
        let weight = Parameter::new(Tensor::from_vec(numbers, &[names.len(), self.dim()])?);
        Ok((Embedding { weight, padding_idx: None }, missing.into_iter().map(|id| names[id].clone()).collect()))
    }
}

#[cfg(all(test, feature = "tokenizers"))]
mod tests {
    use super::*;
    use crate::text::TokenizerTrainer;
    use ndarray::array;

    #[test]
    fn missing_tokens_are_zero_or_random_by_seed() {
        let text: String = (0..400).map(|i| format!("w{i} ")).collect();
        let tokenizer = TokenizerTrainer::word_level().train([&text]).unwrap();
        let vectors = WordVectors::new(["w3", "w5"], array![[2.0, -2.0, 2.0], [-2.0, 2.0, 2.0]]).unwrap();
        let rows = |layer: &Embedding| layer.weight.tensor().to_vec();
        let (zeros, missing) = vectors.embedding_layer(&tokenizer).unwrap();
        let init = |seed| vectors.embedding_layer_init(&tokenizer, &mut Rng::seed(seed)).unwrap();
        let (random, others) = init(7);
        assert_eq!(missing, others);
        assert_eq!(rows(&random), rows(&init(7).0));
        assert_ne!(rows(&random), rows(&init(8).0));
        let mut drawn = Vec::new();
        for (id, (zero, row)) in rows(&zeros).chunks(3).zip(rows(&random).chunks(3)).enumerate() {
            if missing.contains(&tokenizer.id_to_token(id as u32).unwrap()) {
                assert_eq!(zero, [0.0; 3]);
                drawn.extend_from_slice(row);
            } else {
                assert_eq!(zero, row);
            }
        }
        // The root mean square of the two vectors is 2.
        let rms = (drawn.iter().map(|x| x * x).sum::<f32>() / drawn.len() as f32).sqrt();
        assert!(drawn.len() >= 3 * 398 && (rms - 2.0).abs() < 0.2, "{rms}");
    }

    #[test]
    fn without_any_vector_the_standard_deviation_is_one() {
        let tokenizer = TokenizerTrainer::word_level().train(["a b c"]).unwrap();
        let vectors = WordVectors::new(["z"], Array2::from_elem((1, 500), 9.0)).unwrap();
        let (layer, missing) = vectors.embedding_layer_init(&tokenizer, &mut Rng::seed(1)).unwrap();
        let numbers = layer.weight.tensor().to_vec();
        assert_eq!(missing.len() * 500, numbers.len());
        let rms = (numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32).sqrt();
        assert!((rms - 1.0).abs() < 0.1, "{rms}");
    }
}
