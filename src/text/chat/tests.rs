use std::time::{Duration, Instant, UNIX_EPOCH};

use super::*;

fn no_tokens() -> [(&'static str, &'static str); 0] {
    []
}

/// The text of a template for one message of a user.
fn run(template: &str) -> Result<String> {
    let options = ChatOptions::default().add_generation_prompt(false);
    ChatTemplate::new(template, no_tokens())?.render(&[ChatMessage::user("hello")], &options)
}

/// `tests/fixtures/make_chat.py`.
#[test]
fn templates_of_public_models_give_the_text_of_transformers() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let template = ChatTemplate::new(case["template"].as_str().unwrap(), tokens).unwrap();
        for (i, (chat, expected)) in
            fixture["chats"].as_array().unwrap().iter().zip(case["rendered"].as_array().unwrap()).enumerate()
        {
            let messages: Vec<ChatMessage> = serde_json::from_value(chat["messages"].clone()).unwrap();
            let options = ChatOptions {
                add_generation_prompt: chat["add_generation_prompt"].as_bool().unwrap_or(false),
                tools: chat["tools"].as_array().cloned(),
                variables: chat["variables"].as_object().cloned().unwrap_or_default(),
                ..ChatOptions::default()
            };
            let ours = template.render(&messages, &options);
            if ours.as_ref().ok().map(String::as_str) != expected.as_str() {
                wrong.push(format!("{name}, chat {i}:\n ours   {ours:?}\n theirs {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_template_refuses_is_its_own_reason() {
    let error = run("{{ raise_exception('roles must alternate') }}").unwrap_err().to_string();
    assert!(error.contains("roles must alternate"), "{error}");
    let error = run("{% for m in messages %}").unwrap_err().to_string();
    assert!(error.starts_with("chat template `default`"), "{error}");
    assert!(!error.contains(limits::GUARD), "{error}");
    assert!(run("{{ messages.nothing.more }}").is_err());
    assert!(run("{% include 'other' %}").is_err());
}

#[test]
fn templates_without_end_stop_with_an_error() {
    let forever = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}";
    let ends = "{% endfor %}{% endfor %}{% endfor %}";
    let grown = |step: &str| {
        format!(
            "{{% set ns = namespace(x='ab', y='cd', l=[1]) %}}{{% for i in range(200) %}}{step}{{% endfor %}}{{{{ ns.x }}}}"
        )
    };
    let templates = [
        format!("{forever}{ends}"),
        format!("{forever}some text{ends}"),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".into(),
        "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('ab') }}".into(),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}x{% endmacro %}{{ f(40) }}".into(),
        grown("{% set ns.x = ns.x ~ ns.x %}"),
        grown("{% set ns.x = ns.x + ns.x %}"),
        grown("{% set ns.x = ns.x * 9 %}"),
        grown("{% set ns.x = ns.y + ns.x %}{% set ns.y = ns.x + ns.y %}"),
        grown("{% set ns.x = ns.x.replace('a', 'aa') %}"),
        grown("{% set ns.x = ns.x|replace('a', 'aa') %}"),
        grown("{% set ns.x = ns.x.join([ns.x, ns.x, ns.x]) %}"),
        grown("{% set ns.x = [ns.x, ns.x]|join %}"),
        grown("{% set ns.x = ns.x|tojson|tojson %}"),
        grown("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        grown("{% set ns.x = (ns.x, ns.x)|string %}"),
        grown("{% set ns.l = [ns.l, ns.l] %}"),
        grown("{% set ns.l = ns.l + ns.l %}"),
        grown("{% set ns.l = {'a': ns.l, 'b': ns.l} %}"),
        grown("{% set ns.l = [ns.l] %}"),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns|tojson }}".into(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns ~ 'x' }}".into(),
        "{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}{{ ns ~ 'x' }}".into(),
        "{% set ns = namespace() %}{% set ns.x, b = (ns, 1) %}{{ ns ~ 'x' }}".into(),
        "{% macro f(x) %}{{ f(namespace(a=x, b=x)) }}{% endmacro %}{{ f(1) }}".into(),
        "{% macro f(x) %}{{ f(dict(a=x, b=x)) }}{% endmacro %}{{ f(1) }}".into(),
        "{{ 'x'|indent(99999999999) }}".into(),
        "{{ 'x' * 99999999999 }}".into(),
        "{{ '%99999999999d'|format(1) }}".into(),
        "{{ '{:99999999999}'.format(1) }}".into(),
        format!("{{{{ {}1{} }}}}", "(".repeat(9999), ")".repeat(9999)),
        format!("{{{{ {} }}}}", "[".repeat(9999)),
        "{% if a %}".repeat(9999),
        "x".repeat(2 << 20),
    ];
    for template in templates {
        let start = Instant::now();
        let short: String = template.chars().take(150).collect();
        assert!(run(&template).is_err(), "{short}");
        assert!(start.elapsed() < Duration::from_secs(60), "{short}: {:?}", start.elapsed());
    }
}

#[test]
fn long_conversations_are_within_the_limits() {
    let template = "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = ns.text ~ m.role %}\
                    {{ '<|' ~ m.role ~ '|>' + m.content|trim }}\n{% endfor %}{{ ns.text|length }}";
    let template = ChatTemplate::new(template, no_tokens()).unwrap();
    let messages: Vec<ChatMessage> = (0..2000).map(|_| ChatMessage::user("word ".repeat(200))).collect();
    let text = template.render(&messages, &ChatOptions::default()).unwrap();
    assert!(text.ends_with("\n8000"));
}

#[test]
fn dates_are_those_of_the_calendar() {
    let at = |seconds| {
        functions::strftime(
            "%Y-%m-%d %d %b %Y %A %B %j %H:%M:%S %I%p %-d %y%%",
            UNIX_EPOCH + Duration::from_secs(seconds),
        )
    };
    assert_eq!(at(0).unwrap(), "1970-01-01 01 Jan 1970 Thursday January 001 00:00:00 12AM 1 70%");
    assert_eq!(at(951_827_696).unwrap(), "2000-02-29 29 Feb 2000 Tuesday February 060 12:34:56 12PM 29 00%");
    assert_eq!(at(1_798_761_599).unwrap(), "2026-12-31 31 Dec 2026 Thursday December 365 23:59:59 11PM 31 26%");
    assert!(functions::strftime("%Q", UNIX_EPOCH).is_err());
    assert_eq!(run("{{ strftime_now('%Y')|length }}").unwrap(), "4");
}

#[test]
fn a_folder_has_its_templates_and_special_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert!(ChatTemplate::open(folder.path()).unwrap().is_none());
    let config = r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "unk_token": null,
        "add_bos_token": true, "additional_special_tokens": ["<a>", {"content": "<b>"}],
        "chat_template": [{"name": "default", "template": "{{ bos_token }}{{ additional_special_tokens[1] }}{{ unk_token is defined }}"},
                          {"name": "tool_use", "template": "tools {{ tools|length }}"}]}"#;
    write("tokenizer_config.json", config);
    let render = |options: &ChatOptions| {
        ChatTemplate::open(folder.path()).unwrap().unwrap().render(&[ChatMessage::user("x")], options)
    };
    assert_eq!(render(&ChatOptions::default()).unwrap(), "<s><b>False");
    assert_eq!(render(&ChatOptions::default().tools(vec![Value::Null])).unwrap(), "tools 1");
    write("chat_template.jinja", "{{ eos_token }}{{ extra }}");
    assert_eq!(render(&ChatOptions::default().variable("extra", "!")).unwrap(), "</s>!");
    write("tokenizer_config.json", "[]");
    assert!(ChatTemplate::open(folder.path()).is_err());
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    write("tokenizer_config.json", r#"{"chat_template": 3}"#);
    assert!(ChatTemplate::open(folder.path()).unwrap_err().to_string().contains("chat_template"));
    let template = ChatTemplate::new("x", no_tokens()).unwrap();
    assert!(template.render_named("other", &[], &ChatOptions::default()).is_err());
}
