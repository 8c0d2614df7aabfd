use std::time::{Duration, Instant, UNIX_EPOCH};

use super::*;

fn no_tokens() -> [(&'static str, &'static str); 0] {
    []
}

/// Renders a template for one user message.
fn run(template: &str) -> Result<String> {
    let options = ChatOptions::default().add_generation_prompt(false);
    ChatTemplate::new(template, no_tokens())?.render(&[ChatMessage::user("hello")], &options)
}

/// Test sets of `tests/fixtures/make_chat.py`: each template is rendered for all conversations of
/// its set.
fn gives_the_text_of_transformers(set: usize) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let set = &fixture["sets"][set];
    let chats = set["chats"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in set["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let template = ChatTemplate::new(case["template"].as_str().unwrap(), tokens);
        for (i, (chat, expected)) in chats.iter().zip(case["rendered"].as_array().unwrap()).enumerate() {
            let messages: Vec<ChatMessage> = serde_json::from_value(chat["messages"].clone()).unwrap();
            let options = ChatOptions {
                add_generation_prompt: chat["add_generation_prompt"].as_bool().unwrap_or(false),
                tools: chat["tools"].as_array().cloned(),
                documents: chat["documents"].as_array().cloned(),
                variables: chat["variables"].as_object().cloned().unwrap_or_default(),
            };
            let ours = template.as_ref().map(|template| template.render(&messages, &options));
            let text = ours.as_ref().ok().and_then(|ours| ours.as_ref().ok());
            if text.map(String::as_str) != expected.as_str() {
                wrong.push(format!("{name}, chat {i}:\n ours   {ours:?}\n theirs {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn templates_of_public_models_give_the_text_of_transformers() {
    gives_the_text_of_transformers(0);
}

#[test]
fn styles_of_templates_give_the_text_of_transformers_for_a_matrix_of_conversations() {
    gives_the_text_of_transformers(1);
}

#[test]
fn expressions_give_the_text_of_transformers() {
    gives_the_text_of_transformers(2);
}

#[test]
fn what_a_template_refuses_is_its_own_reason() {
    let error = run("{{ raise_exception('roles must alternate') }}").unwrap_err().to_string();
    assert!(error.contains("roles must alternate"), "{error}");
    let error = run("{% for m in messages %}").unwrap_err().to_string();
    assert!(error.starts_with("chat template `default`"), "{error}");
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
    let many = "{% set a = 'a' * 8000000 %}{% set l = range(99999)|list %}{% for i in range(99999) %}";
    let end = "{% endfor %}";
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
        "{% macro f(x) %}{{ f(namespace(a=x, b=x)) }}{% endmacro %}{{ f(1) }}".into(),
        "{% macro f(x) %}{{ f(dict(a=x, b=x)) }}{% endmacro %}{{ f(1) }}".into(),
        "{{ 'x'|indent(99999999999) }}".into(),
        "{{ 'x' * 99999999999 }}".into(),
        "{{ '%99999999999d'|format(1) }}".into(),
        "{{ '{:99999999999}'.format(1) }}".into(),
        format!("{{{{ {}1{} }}}}", "(".repeat(9999), ")".repeat(9999)),
        format!("{{{{ {} }}}}", "[".repeat(9999)),
        format!("{{{{ {}1 }}}}", "-".repeat(9999)),
        format!("{{{{ {}1{} }}}}", "a[".repeat(9999), "]".repeat(9999)),
        format!("{{{{ {}1{} }}}}", "range(".repeat(9999), ")".repeat(9999)),
        format!("{{{{ {}1{} }}}}", "{1:".repeat(9999), "}".repeat(9999)),
        format!("{{{{ 1{} }}}}", "|default(1".repeat(9999)),
        "{% if a %}".repeat(9999),
        "{% for a in [1] %}".repeat(9999),
        "x".repeat(2 << 20),
        format!("{{{{ [{}] }}}}", "1,".repeat(200_000)),
        // Values that are read again and again.
        format!("{many}{{% set b = a|upper %}}{end}"),
        format!("{many}{{% set b = a[1:] %}}{end}"),
        format!("{many}{{% set b = a[-1] %}}{end}"),
        format!("{many}{{% set b = a|length %}}{end}"),
        format!("{many}{{% set b = 'b' in a %}}{end}"),
        format!("{many}{{% set b = a == a ~ '' %}}{end}"),
        format!("{many}{{% set b = a < a ~ 'b' %}}{end}"),
        format!("{many}{{% set b = a is lower %}}{end}"),
        format!("{many}{{% set b = a.find('b') %}}{end}"),
        format!("{many}{{% set b = a.split('b') %}}{end}"),
        format!("{many}{{% set b = a.strip('a') %}}{end}"),
        format!("{many}{{% set b = '%s' % a %}}{end}"),
        format!("{many}{{% set b = '{{}}'.format(a) %}}{end}"),
        format!("{many}{{% set b = l|sort %}}{end}"),
        format!("{many}{{% set b = l == l + [] %}}{end}"),
        format!("{many}{{% set b = -1 in l %}}{end}"),
        format!("{many}{{% set b = l|map('string') %}}{end}"),
        format!("{many}{{% set b = l|unique %}}{end}"),
        format!("{many}{{% set b = l|tojson %}}{end}"),
        format!("{many}{{% set b = l[::-1] %}}{end}"),
        format!("{many}{{% for c in a %}}{{% endfor %}}{end}"),
        "{{ (range(99999)|list * 3)|map('string')|sort|unique|list }}".into(),
        "{{ '%s' * 999999 % 1 }}".into(),
        "{{ ('{' * 999999).format(1) }}".into(),
        "{{ '{:{}}'.format('x', 99999999) }}".into(),
        "{{ 1|round(99999999999) ~ '%.99999999999f' % 1.0 }}".into(),
        "{{ [1]|batch(99999999999, 1)|list }}".into(),
        "{{ [1]|slice(99999999999, 1)|list }}".into(),
        "{{ 'x'|center(99999999999) }}".into(),
        "{{ 'x'.zfill(99999999999) ~ 'x'.ljust(99999999999) }}".into(),
        "{{ '\t'.expandtabs(99999999999) }}".into(),
        "{{ 2 ** 99999999999 }}".into(),
        "{{ [1]|tojson(indent=99999999999) }}".into(),
        format!("{{% set x = 'a' * 1000000 %}}{}", "{% set a = x|list %}".repeat(40)),
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(),
        "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}".into(),
        "{% macro f(x=f()) %}{% endmacro %}{{ f() }}".into(),
        "{% set ns = namespace() %}{% macro f() %}{{ ns.f() }}{% endmacro %}{% set ns.f = f %}{{ f() }}".into(),
    ];
    for template in templates {
        let start = Instant::now();
        let short: String = template.chars().take(150).collect();
        assert!(on_small_stack(&template).is_err(), "{short}");
        assert!(start.elapsed() < Duration::from_secs(60), "{short}: {:?}", start.elapsed());
    }
}

/// Compiles, renders and drops a template on a stack of 1 MB.
fn on_small_stack(template: &str) -> Result<String> {
    let run = || run(template);
    std::thread::scope(|scope| std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, run).unwrap().join())
        .unwrap()
}

#[test]
fn long_chains_need_no_stack() {
    let wrapped = |before: &str, step: &str| format!("{{% set a = 1 %}}{{{{ {before}{} }}}}", step.repeat(20_000));
    for (template, expected) in [
        (wrapped("{}", ".b is defined"), None),
        (wrapped("a", ".b"), None),
        (wrapped("a", "[0]"), None),
        (wrapped("a", "()"), None),
        (wrapped("a", "~a"), Some("1".repeat(20_001))),
        (wrapped("a", "+1"), Some("20001".into())),
        (wrapped("a", "*1"), Some("1".into())),
        (wrapped("a", "**1"), Some("1".into())),
        (wrapped("a", "|upper"), Some("1".into())),
        (wrapped("a", " and a"), Some("1".into())),
        (wrapped("a", " or a"), Some("1".into())),
        (wrapped("a", " == a"), Some("True".into())),
        (wrapped("a", " if a else a"), Some("1".into())),
        (wrapped("0", " if 0 else 0"), Some("0".into())),
        (format!("{{{{ {}a }}}}", "not ".repeat(20_001)), Some("True".into())),
        (format!("{{{{ {}a }}}}", "not ".repeat(20_000)), Some("False".into())),
        (format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(20_000)), Some(String::new())),
        ("{% if 1 %}{% endif %}".repeat(20_000), Some(String::new())),
        ("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}{{ ns.x.x.x ~ '' }}".into(), Some("<Namespace object>".repeat(2))),
        (
            "{% set ns = namespace() %}{% for i in range(9999) %}{% set o = namespace(x=ns.x) %}{% set ns.x = o %}{% endfor %}".into(),
            Some(String::new()),
        ),
    ] {
        let short: String = template.chars().take(60).collect();
        assert_eq!(on_small_stack(&template).ok(), expected, "{short}");
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
        date::strftime("%Y-%m-%d %d %b %Y %A %B %j %H:%M:%S %I%p %-d %y%%", UNIX_EPOCH + Duration::from_secs(seconds))
    };
    assert_eq!(at(0).unwrap(), "1970-01-01 01 Jan 1970 Thursday January 001 00:00:00 12AM 1 70%");
    assert_eq!(at(951_827_696).unwrap(), "2000-02-29 29 Feb 2000 Tuesday February 060 12:34:56 12PM 29 00%");
    assert_eq!(at(1_798_761_599).unwrap(), "2026-12-31 31 Dec 2026 Thursday December 365 23:59:59 11PM 31 26%");
    assert!(date::strftime("%Q", UNIX_EPOCH).is_err());
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
