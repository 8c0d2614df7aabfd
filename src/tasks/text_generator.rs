//! Text generation with a model, its tokenizer and its settings from one folder or file.

use std::path::Path;
use std::sync::Arc;
#[cfg(any(feature = "chat", feature = "constraints"))]
use std::sync::OnceLock;

use crate::checkpoint::OpenOptions;
use crate::error::{Error, Result};
use crate::generation::text::{TextStream, WholeText};
use crate::generation::tokens::generate_with_draft;
use crate::generation::{self, GenerationConfig, Perplexity, StopReason, TokenLogprob};
use crate::models::LanguageModel;
use crate::text::Tokenizer;
#[cfg(feature = "chat")]
use crate::text::chat::{ChatMessage, ChatOptions, ChatTemplate};

/// A language model with its tokenizer and the generation settings of its folder.
///
/// All methods take `&self`, so a generator can be shared between threads. A clone shares the
/// weights.
///
/// ```no_run
/// use loquat::{GenerationConfig, TextGenerator};
///
/// let lm = TextGenerator::open("models/gpt2")?;
/// let config = GenerationConfig::default().max_new_tokens(64).top_p(0.9).seed(7);
/// for piece in lm.stream("The CPU is", &config)? {
///     print!("{}", piece?);
/// }
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// With a model in memory:
///
/// ```
/// use loquat::models::{Gpt2, Gpt2Config, LanguageModel};
/// use loquat::text::TokenizerTrainer;
/// use loquat::{GenerationConfig, Rng, TextGenerator};
///
/// let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(280).train(["the cat sat"])?;
/// let config = Gpt2Config::new(tokenizer.vocab_size(), 64, 24, 2, 3);
/// let model = LanguageModel::new(Gpt2::init(&config, &mut Rng::seed(1))?);
///
/// let lm = TextGenerator::new(model, tokenizer, GenerationConfig::default())?;
/// let config = GenerationConfig::default().max_new_tokens(8).seed(7);
/// assert_eq!(lm.generate("the cat", &config)?, lm.generate("the cat", &config)?);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// Options that a [`GenerationConfig`] leaves unset are taken from `generation_config.json`
/// (temperature, cut-offs, penalties, end tokens), then from the defaults of the crate.
#[derive(Clone)]
pub struct TextGenerator {
    model: Arc<LanguageModel>,
    draft: Option<Arc<LanguageModel>>,
    tokenizer: Arc<Tokenizer>,
    config: GenerationConfig,
    #[cfg(feature = "constraints")]
    grammar_compiler: Arc<OnceLock<generation::GrammarCompiler>>,
    #[cfg(feature = "chat")]
    chat_template: Arc<OnceLock<ChatTemplate>>,
}

/// A stream of text that borrows its [`TextGenerator`].
pub(crate) type BorrowedStream<'g> = TextStream<&'g LanguageModel, &'g Tokenizer>;

/// A stream of text that shares model and tokenizer with its [`TextGenerator`], and may outlive it.
pub type OwnedStream = TextStream<Arc<LanguageModel>, Arc<Tokenizer>>;

impl TextGenerator {
    /// Opens a folder with `config.json`, weights, a tokenizer and optionally
    /// `generation_config.json`, or a `.gguf` file.
    ///
    /// # Errors
    /// Same as [`LanguageModel::open`], [`Tokenizer::open`] and [`GenerationConfig::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// Same as [`TextGenerator::open`], with options for the format and storage of weights.
    ///
    /// To set the precision of matrix products, wrap a call in
    /// [`ops::with_precision`](crate::ops::with_precision).
    ///
    /// # Errors
    /// Same as [`TextGenerator::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        // The smallest file first, to report its errors before reading the weights.
        let config = GenerationConfig::open(path)?;
        Self::new(LanguageModel::open_with(path, options)?, Tokenizer::open(path)?, config)
    }

    /// Creates a generator from a model, its tokenizer, and settings for options that callers leave
    /// unset.
    ///
    /// # Errors
    /// [`Error::Argument`] if the tokenizer has more tokens than the model. Otherwise same as
    /// [`GenerationConfig::check`].
    pub fn new(model: LanguageModel, tokenizer: Tokenizer, mut config: GenerationConfig) -> Result<Self> {
        use crate::models::CausalLm;
        if tokenizer.vocab_size() > model.vocab_size() {
            let expected = format!("at most {} tokens, the model's vocabulary", model.vocab_size());
            return Err(Error::argument("tokenizer", expected, tokenizer.vocab_size()));
        }
        config.check_ranges()?;
        if config.eos_token_ids.is_empty() {
            config.eos_token_ids.extend(tokenizer.eos_token_id());
        }
        Ok(Self {
            model: Arc::new(model),
            draft: None,
            tokenizer: Arc::new(tokenizer),
            config,
            #[cfg(feature = "constraints")]
            grammar_compiler: Arc::default(),
            #[cfg(feature = "chat")]
            chat_template: Arc::default(),
        })
    }

    /// Adds a draft model: a smaller model of the same vocabulary that proposes
    /// [`GenerationConfig::num_assistant_tokens`] tokens at a time. The text does not change; it is
    /// generated faster if the proposals are good. See [`generation::speculate`]. Used by streams
    /// of a single text without beams.
    ///
    /// # Errors
    /// [`Error::Argument`] if the vocabulary sizes differ.
    pub fn with_draft(mut self, draft: LanguageModel) -> Result<Self> {
        generation::speculation::check_draft(&*self.model, &draft)?;
        self.draft = Some(Arc::new(draft));
        Ok(self)
    }

    /// Returns the model.
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the settings for options that callers leave unset.
    pub fn config(&self) -> &GenerationConfig {
        &self.config
    }

    /// Encodes a prompt, with the special tokens that the tokenizer adds. An empty prompt becomes
    /// the token that begins a text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the prompt cannot be encoded; [`Error::Argument`] for an empty
    /// prompt if the tokenizer has no token that begins a text.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode(prompt)?.input_ids;
        if !ids.is_empty() {
            return Ok(ids);
        }
        match self.tokenizer.bos_token_id().or_else(|| self.tokenizer.eos_token_id()) {
            Some(id) => Ok(vec![id]),
            None => Err(Error::argument(
                "prompt",
                "a non-empty text, as the tokenizer has no token that begins a text",
                "an empty one",
            )),
        }
    }

    /// Returns the continuation of a prompt.
    ///
    /// # Errors
    /// Same as [`generation::generate()`]; [`Error::Tokenizer`] if the prompt cannot be encoded.
    pub fn generate(&self, prompt: &str, config: &GenerationConfig) -> Result<String> {
        self.stream(prompt, config)?.collect()
    }

    /// Continues a prompt and returns an iterator of text pieces. Pieces consist of whole
    /// characters, are computed on demand, and may be empty.
    ///
    /// # Errors
    /// Same as [`TextGenerator::generate`]; errors during decoding are returned by the iterator.
    pub fn stream(&self, prompt: &str, config: &GenerationConfig) -> Result<BorrowedStream<'_>> {
        self.stream_ids(&self.encode(prompt)?, config)
    }

    /// Same as [`TextGenerator::stream`], from token ids.
    ///
    /// # Errors
    /// Same as [`generation::generate()`].
    pub fn stream_ids(&self, prompt_ids: &[u32], config: &GenerationConfig) -> Result<BorrowedStream<'_>> {
        let settings = self.settings(config)?;
        let for_ids = settings.for_ids();
        let tokens = match self.drafting(&settings) {
            Some(draft) => generate_with_draft(&*self.model, &**draft, prompt_ids, &for_ids)?,
            None => generation::generate(&*self.model, prompt_ids, &for_ids)?,
        };
        Ok(TextStream::new(tokens, &*self.tokenizer, &settings))
    }

    /// Continues several prompts in one batch. Each text is the one that
    /// [`TextGenerator::generate`] returns for its prompt; see [`generation::BatchGenerator`].
    ///
    /// # Errors
    /// Same as [`generation::generate_batch`]; [`Error::Prompt`] for a prompt that cannot be
    /// encoded.
    pub fn generate_batch(&self, prompts: &[impl AsRef<str>], config: &GenerationConfig) -> Result<Vec<String>> {
        let settings = self.settings(config)?;
        let for_ids = settings.for_ids();
        let mut batch = generation::BatchGenerator::new(&*self.model);
        let mut texts = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.iter().enumerate() {
            let ids = self.encode(prompt.as_ref()).map_err(Error::prompt(index))?;
            batch.push(&ids, &for_ids).map_err(Error::prompt(index))?;
            texts.push(WholeText::new(&*self.tokenizer, &ids, &settings));
        }
        while let Some(written) = batch.next() {
            let (text, id) = written?;
            if texts[text].push(id)? {
                batch.stop(text, StopReason::StopString);
            }
        }
        texts.into_iter().map(WholeText::finish).collect()
    }

    /// Same as [`TextGenerator::stream`], with a stream that can be moved to another thread or
    /// task.
    ///
    /// # Errors
    /// Same as [`TextGenerator::stream`].
    pub fn owned_stream(&self, prompt: &str, config: &GenerationConfig) -> Result<OwnedStream> {
        let (ids, settings, model) = (self.encode(prompt)?, self.settings(config)?, Arc::clone(&self.model));
        let for_ids = settings.for_ids();
        let tokens = match self.drafting(&settings) {
            Some(draft) => generate_with_draft(model, Arc::clone(draft), &ids, &for_ids)?,
            None => generation::generate(model, &ids, &for_ids)?,
        };
        Ok(TextStream::new(tokens, Arc::clone(&self.tokenizer), &settings))
    }

    /// Generates the answer to a conversation and returns an iterator of text pieces.
    ///
    /// # Errors
    /// Same as [`TextGenerator::chat_ids`] and [`TextGenerator::stream_ids`].
    ///
    /// # Examples
    /// ```no_run
    /// use loquat::text::chat::{ChatMessage, ChatOptions};
    /// use loquat::{GenerationConfig, TextGenerator};
    ///
    /// let lm = TextGenerator::open("models/SmolLM2-135M-Instruct")?;
    /// let messages = [ChatMessage::system("Be brief."), ChatMessage::user("What is a loquat?")];
    /// for piece in lm.chat(&messages, &ChatOptions::default(), &GenerationConfig::default())? {
    ///     print!("{}", piece?);
    /// }
    /// # Ok::<(), loquat::Error>(())
    /// ```
    #[cfg(feature = "chat")]
    pub fn chat(
        &self,
        messages: &[ChatMessage],
        options: &ChatOptions,
        config: &GenerationConfig,
    ) -> Result<BorrowedStream<'_>> {
        self.stream_ids(&self.chat_ids(messages, options)?, config)
    }

    /// Formats a conversation with the model's chat template and encodes it.
    ///
    /// # Errors
    /// Same as [`TextGenerator::chat_template`] and [`ChatTemplate::render`].
    #[cfg(feature = "chat")]
    pub fn chat_ids(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<Vec<u32>> {
        self.tokenizer.encode_without_special(&self.chat_template()?.render(messages, options)?)
    }

    /// Returns the model's chat template.
    ///
    /// # Errors
    /// [`Error::Template`] if the model has no chat template. Otherwise same as
    /// [`ChatTemplate::of`].
    #[cfg(feature = "chat")]
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
        if let Some(template) = self.chat_template.get() {
            return Ok(template);
        }
        match ChatTemplate::of(&self.tokenizer)? {
            Some(template) => Ok(self.chat_template.get_or_init(|| template)),
            None => Err(Error::Template {
                name: "default".into(),
                reason: "the model has none (looked for `chat_template.jinja`, `tokenizer_config.json`, and the \
                         metadata of a `.gguf` file)"
                    .into(),
            }),
        }
    }

    /// Returns the same generator with another chat template.
    #[cfg(feature = "chat")]
    pub fn with_chat_template(self, template: ChatTemplate) -> Self {
        Self { chat_template: Arc::new(OnceLock::from(template)), ..self }
    }

    /// Returns the log-probability of each token of a text but the first, given the tokens before
    /// it, with the `top` most probable alternatives for each.
    ///
    /// # Errors
    /// Same as [`generation::score()`]; [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn score(&self, text: &str, top: usize) -> Result<Vec<TokenLogprob>> {
        generation::score(&*self.model, &self.encode(text)?, top)
    }

    /// Measures the perplexity of a text of any length; see [`generation::perplexity()`].
    ///
    /// # Errors
    /// Same as [`generation::perplexity()`]; [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn perplexity(&self, text: &str, context: Option<usize>, stride: Option<usize>) -> Result<Perplexity> {
        generation::perplexity(&*self.model, &self.encode(text)?, context, stride)
    }

    /// Decodes ids that continue a prompt, up to the first stop string; for example the ids of one
    /// of a beam search's [`hypotheses`](crate::generation::Tokens::hypotheses).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's decoder fails.
    pub fn text_after(&self, prompt_ids: &[u32], ids: &[u32], config: &GenerationConfig) -> Result<String> {
        let mut text = WholeText::new(&*self.tokenizer, prompt_ids, &self.settings(config)?);
        for &id in ids {
            text.push(id)?;
        }
        text.finish()
    }

    /// Returns the grammar compiler of the tokenizer's vocabulary, which is built at the first
    /// call. See [`GenerationConfig::constraint`].
    ///
    /// # Errors
    /// Same as [`generation::GrammarCompiler::of`].
    #[cfg(feature = "constraints")]
    pub fn grammar_compiler(&self) -> Result<&generation::GrammarCompiler> {
        if let Some(compiler) = self.grammar_compiler.get() {
            return Ok(compiler);
        }
        let compiler = generation::GrammarCompiler::of(&self.tokenizer)?;
        Ok(self.grammar_compiler.get_or_init(|| compiler))
    }

    /// The draft model, if these settings can use it.
    fn drafting(&self, settings: &GenerationConfig) -> Option<&Arc<LanguageModel>> {
        self.draft.as_ref().filter(|_| settings.beams() == 1)
    }

    /// Completes the caller's settings with those of the folder.
    fn settings(&self, config: &GenerationConfig) -> Result<GenerationConfig> {
        if let (Some(count), None) = (config.num_assistant_tokens, &self.draft) {
            return Err(Error::argument(
                "num_assistant_tokens",
                "no value without a draft model (`with_draft`)",
                count,
            ));
        }
        Ok(config.clone().with_defaults(&self.config))
    }
}

impl std::fmt::Debug for TextGenerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextGenerator({:?})", self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Cancel;
    use crate::models::{CausalLm, MlpConfig, MlpLm};
    use crate::random::Rng;
    use crate::text::TokenizerTrainer;

    fn generator(config: GenerationConfig) -> TextGenerator {
        let tokenizer = TokenizerTrainer::byte_level_bpe().vocab_size(280).train(["the cat sat on the mat"]).unwrap();
        let config_of_model = MlpConfig::new(tokenizer.vocab_size(), 6, 8, 3);
        let model = MlpLm::init(&config_of_model, &mut Rng::seed(2)).unwrap();
        TextGenerator::new(LanguageModel::new(model), tokenizer, config).unwrap()
    }

    #[test]
    fn it_is_shared_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<TextGenerator>();
        let lm = generator(GenerationConfig::default());
        let config = GenerationConfig::default().max_new_tokens(9).seed(4);
        let text = lm.generate("the cat", &config).unwrap();
        let stream = lm.owned_stream("the cat", &config).unwrap();
        drop(lm);
        let other: Result<String> = std::thread::spawn(move || stream.collect()).join().unwrap();
        assert_eq!(other.unwrap(), text);
    }

    #[test]
    fn a_draft_changes_no_text() {
        let config = GenerationConfig::default().greedy().max_new_tokens(20).stop("zz");
        let lm = generator(GenerationConfig::default());
        let text = lm.generate("the cat", &config).unwrap();
        let model = |vocabulary| MlpLm::init(&MlpConfig::new(vocabulary, 3, 4, 2), &mut Rng::seed(5)).unwrap();
        let other = LanguageModel::new(model(lm.model().vocab_size() + 1));
        assert!(lm.clone().with_draft(other).unwrap_err().to_string().contains("vocabulary"));
        let draft = LanguageModel::new(model(lm.model().vocab_size()));
        let lm = lm.with_draft(draft).unwrap();
        assert_eq!(lm.generate("the cat", &config).unwrap(), text);
        let owned: Result<String> = lm.owned_stream("the cat", &config).unwrap().collect();
        assert_eq!(owned.unwrap(), text);
        assert!(lm.generate("the cat", &config.num_beams(2)).is_ok(), "beams go without");
    }

    #[test]
    fn what_a_caller_does_not_say_the_folder_says() {
        let lm = generator(GenerationConfig::default().greedy().max_new_tokens(3));
        let mut stream = lm.stream("the", &GenerationConfig::default()).unwrap();
        assert_eq!(stream.by_ref().map(|piece| piece.unwrap()).collect::<String>(), {
            lm.generate("the", &GenerationConfig::default().seed(99)).unwrap()
        });
        assert_eq!((stream.new_ids().len(), stream.stop_reason()), (3, Some(StopReason::MaxNewTokens)));
        assert_eq!(lm.encode("").unwrap(), [lm.tokenizer().eos_token_id().unwrap()], "what begins a text");
    }

    #[test]
    fn prompts_together_have_the_texts_that_they_have_alone() {
        let lm = generator(GenerationConfig::default());
        let prompts = ["the cat", "mat", "", "sat on the"];
        for config in [GenerationConfig::default().seed(3), GenerationConfig::default().seed(5).stop("a").stop("ca")] {
            let config = config.max_new_tokens(40);
            let alone: Vec<String> = prompts.iter().map(|prompt| lm.generate(prompt, &config).unwrap()).collect();
            assert_eq!(lm.generate_batch(&prompts, &config).unwrap(), alone);
        }
    }

    #[test]
    fn a_batch_s_error_names_the_prompt() {
        let lm = generator(GenerationConfig::default());
        let broken = |ids: &[u32], _: &mut [f32]| match ids.len() {
            1 => Err(Error::argument("test", "a longer prompt", ids.len())),
            _ => Ok(()),
        };
        let config = GenerationConfig::default().max_new_tokens(3).processor(broken);
        let error = lm.generate_batch(&["the cat", ""], &config).unwrap_err().to_string();
        assert!(error.starts_with("prompt 1 (counted from 0): test: expected a longer prompt"), "{error}");
    }

    #[test]
    fn a_folder_that_says_greedy_does_not_silence_its_caller() {
        let folder = serde_json::json!({"do_sample": false, "temperature": 0.6, "max_new_tokens": 30});
        let lm = generator(GenerationConfig::from_json(&folder).unwrap());
        let write = |config: GenerationConfig| lm.generate("the", &config).unwrap();
        let greedy = write(GenerationConfig::default());
        assert_eq!(greedy, write(GenerationConfig::default().temperature(0.0).seed(5)));
        for drawn in [
            GenerationConfig::default().temperature(1.0),
            GenerationConfig::default().top_p(0.9),
            GenerationConfig::default().sample(),
        ] {
            assert_ne!(write(drawn.clone().seed(1)), greedy, "{drawn:?}");
            assert_ne!(write(drawn.clone().seed(1)), write(drawn.clone().seed(2)), "{drawn:?}");
        }
        assert!(lm.generate("the", &GenerationConfig::default().num_assistant_tokens(3)).is_err(), "without a draft");
        let contradiction = GenerationConfig::default().greedy().temperature(0.8);
        assert!(lm.generate("the", &contradiction).unwrap_err().to_string().starts_with("temperature"));
    }

    #[test]
    fn time_and_cancelling_end_a_text() {
        let lm = generator(GenerationConfig::default());
        let cancel = Cancel::new();
        let mut stream = lm.stream("the", &GenerationConfig::default().cancel(&cancel)).unwrap();
        assert!(stream.next().is_some());
        cancel.cancel();
        stream.by_ref().for_each(drop);
        assert_eq!((stream.new_ids().len(), stream.stop_reason()), (1, Some(StopReason::Cancelled)));
        let mut stream = lm.stream("the", &GenerationConfig::default().max_time(std::time::Duration::ZERO)).unwrap();
        stream.by_ref().for_each(drop);
        assert_eq!((stream.new_ids().len(), stream.stop_reason()), (0, Some(StopReason::Deadline)));
    }

    #[cfg(feature = "chat")]
    #[test]
    fn a_conversation_is_answered() {
        let lm = generator(GenerationConfig::default());
        let (messages, options) = ([ChatMessage::user("the cat")], ChatOptions::default());
        assert!(lm.chat_ids(&messages, &options).unwrap_err().to_string().contains("chat_template.jinja"));
        let none: [(&str, &str); 0] = [];
        let template = ChatTemplate::new("{{ messages[0].content }} sat", none).unwrap();
        let lm = lm.with_chat_template(template);
        assert_eq!(lm.chat_ids(&messages, &options).unwrap(), lm.encode("the cat sat").unwrap());
        let config = GenerationConfig::default().max_new_tokens(5).seed(3);
        let answer: Result<String> = lm.chat(&messages, &options, &config).unwrap().collect();
        assert_eq!(answer.unwrap(), lm.generate("the cat sat", &config).unwrap());
    }

    #[test]
    fn a_text_is_scored() {
        let lm = generator(GenerationConfig::default());
        let scores = lm.score("the cat sat", 2).unwrap();
        assert_eq!(scores.len() + 1, lm.encode("the cat sat").unwrap().len());
        let nll: f64 = scores.iter().map(|token| -f64::from(token.logprob)).sum();
        let perplexity = lm.perplexity("the cat sat", Some(64), None).unwrap();
        assert!((perplexity.nll - nll).abs() < 1e-4);
    }

    #[cfg(feature = "constraints")]
    #[test]
    fn constraints_hold_whatever_the_model_wants() {
        let lm = generator(GenerationConfig::default());
        for seed in 0..20 {
            let constraint = lm.grammar_compiler().unwrap().regex("(cat|mat)( sat){0,2}[äö]").unwrap();
            let config = GenerationConfig::default().constraint(constraint).seed(seed);
            let mut stream = lm.stream("the ", &config).unwrap();
            let text: String = stream.by_ref().map(|piece| piece.unwrap()).collect();
            assert!(text.starts_with("cat") || text.starts_with("mat"), "{text}");
            assert!(text.ends_with(['ä', 'ö']), "{text}");
            assert_eq!(stream.stop_reason(), Some(StopReason::Complete));
        }
    }
}
