//! Stop words: lists for English and Chinese, and custom ones.
//!
//! ```
//! use loquat::text::StopWords;
//!
//! let stop_words = StopWords::english().with(["cat"]).without(["not"]);
//! let kept: Vec<&str> = stop_words.filter("The cat is not on the mat".split(' ')).collect();
//! assert_eq!(kept, ["not", "mat"]);
//! ```

use std::collections::HashSet;

/// A set of stop words. Case is ignored.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StopWords(HashSet<String>);

impl std::fmt::Debug for StopWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StopWords({})", self.0.len())
    }
}

impl StopWords {
    /// Returns the English list: articles, pronouns, prepositions, conjunctions, auxiliary verbs
    /// and their contractions.
    pub fn english() -> Self {
        ENGLISH.split_whitespace().collect()
    }

    /// Returns the Chinese list, in simplified characters: particles, pronouns, prepositions,
    /// conjunctions, adverbs of degree and measure words.
    pub fn chinese() -> Self {
        CHINESE.split_whitespace().collect()
    }

    /// Adds words.
    #[must_use]
    pub fn with<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.0.extend(words.into_iter().map(|word| fold(word.as_ref())));
        self
    }

    /// Removes words.
    #[must_use]
    pub fn without<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        for word in words {
            self.0.remove(&fold(word.as_ref()));
        }
        self
    }

    /// Returns whether a word is in the set.
    pub fn contains(&self, word: &str) -> bool {
        self.0.contains(word) || self.0.contains(&fold(word))
    }

    /// Returns the words that are not in the set.
    pub fn filter<'a, I: IntoIterator<Item = &'a str>>(&self, words: I) -> impl Iterator<Item = &'a str> {
        words.into_iter().filter(|word| !self.contains(word))
    }

    /// Returns the number of words in the set.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: AsRef<str>> FromIterator<S> for StopWords {
    fn from_iter<I: IntoIterator<Item = S>>(words: I) -> Self {
        StopWords::default().with(words)
    }
}

/// Lower case, with a straight apostrophe.
fn fold(word: &str) -> String {
    word.to_lowercase().replace('\u{2019}', "'")
}

const ENGLISH: &str = "
a an the this that these those
i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs themselves one's
who whom whose which what when where why how
and but or nor so yet if because as until while although though unless whether than since
of at by for with about against between into through during before after above below to from up down in out on off over
under upon within without along across behind beside beyond among towards toward onto per via
am is are was were be been being have has had having do does did doing done
will would shall should can could may might must ought
not no never neither none only own same such too very just also even still already ever
again further then once here there now
all any both each few more most other others another some many much several every either
i'm you're he's she's it's we're they're i've you've we've they've i'd you'd he'd she'd we'd they'd i'll you'll he'll
she'll we'll they'll that's there's here's what's who's let's
isn't aren't wasn't weren't hasn't haven't hadn't doesn't don't didn't won't wouldn't shan't shouldn't can't cannot couldn't
mightn't mustn't needn't
";

const CHINESE: &str = "
的 了 着 过 地 得 之 所 吗 呢 吧 啊 呀 嘛 啦 哦 哇 么 罢了 而已 似的
我 你 您 他 她 它 咱 我们 你们 他们 她们 它们 咱们 自己 大家 人家 别人 彼此
这 那 哪 这个 那个 哪个 这些 那些 哪些 这里 那里 哪里 这儿 那儿 哪儿 这样 那样 怎样 这么 那么 怎么 此 其 该 各 每 某 另 本
谁 什么 为什么 几 多少 怎么样 如何 为何 何
和 与 及 以及 并 并且 而 而且 或 或者 还是 但 但是 可是 然而 不过 却 只是 因为 由于 所以 因此 因而 于是 如果 要是 假如 若
即使 虽然 尽管 无论 不管 只要 只有 除非 既然 从而 否则 况且 何况 此外 另外 总之 例如 比如 甚至 乃至 不但 不仅 不如 与其
在 从 自 自从 到 向 往 朝 对 对于 关于 至于 跟 同 给 把 被 将 叫 让 由 以 用 按 按照 根据 依 依据 通过 经过 随着 沿着 为 为了 比 除了
当 于 至 离 凭 替
是 有 没 没有 不 不是 别 未 无 非 能 能够 会 可 可以 可能 应 应该 应当 要 想 愿意 必须 得以 需要 来 去 起来 下去 出来 上来 进行 使 使得
很 太 更 最 极 非常 十分 相当 比较 稍 稍微 挺 越 越来越 特别 尤其 几乎 差不多 大约 大概 左右
也 都 还 又 再 就 才 只 仅 仅仅 已 已经 曾 曾经 正 正在 刚 刚刚 便 即 立即 马上 总 总是 常 常常 经常 往往 一直 仍 仍然 仍旧 依然 究竟 到底 毕竟
其实 当然 确实 的确 果然 居然 竟然 难道 也许 或许 恐怕 似乎 好像 然后 接着 随后 最后 同时 首先 其次
一 一个 一些 一种 一样 一下 一点 一切 个 些 种 位 件 次 们 第 等 等等 之一 之间 之后 之前 以后 以前 以上 以下 上 下 里 中 内 外 前 后 间 时 时候
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_the_words_that_say_little() {
        let english = StopWords::english();
        for word in ["the", "The", "AND", "don't", "Don\u{2019}t", "whom"] {
            assert!(english.contains(word), "{word}");
        }
        for word in ["cat", "language", "good", ""] {
            assert!(!english.contains(word), "{word}");
        }
        let chinese = StopWords::chinese();
        for word in ["的", "我们", "因为", "没有"] {
            assert!(chinese.contains(word), "{word}");
        }
        assert!(!chinese.contains("语言") && !chinese.contains("the"));
        assert!(english.len() > 150 && chinese.len() > 250, "{} {}", english.len(), chinese.len());
    }

    #[test]
    fn lists_can_be_changed_and_replaced() {
        let own: StopWords = ["Und", "oder"].into_iter().collect();
        assert!(own.contains("und") && own.contains("ODER") && !own.contains("the"));
        assert!(own.without(["UND", "oder"]).is_empty());
    }
}
