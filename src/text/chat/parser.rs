//! Parses a template's tokens to a syntax tree.
//!
//! Chains (`a.b.c`, `a + b + c`, `a if b else c if d else e`, `elif`) are lists in the tree, so
//! only brackets, prefix operators and blocks make it deeper. Their nesting is limited, so
//! traversing or dropping the tree needs little stack.

use std::sync::Arc;

use super::lexer::{self, Token};
use super::limits::{self, Failure, Result, fail};

/// A literal value.
#[derive(Debug)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
}

#[derive(Debug)]
pub(super) enum Expr {
    Literal(Literal),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// Left-associative operators of one precedence.
    Arithmetic(Box<Expr>, Vec<(Operator, Expr)>),
    /// `a ~ b ~ c`.
    Concat(Vec<Expr>),
    Postfix(Box<Expr>, Vec<Postfix>),
    /// Conditions with their values, and the value if no condition holds.
    If(Vec<(Expr, Expr)>, Option<Box<Expr>>),
}

/// A postfix operation: attribute, index, call, filter or test.
#[derive(Debug)]
pub(super) enum Postfix {
    Attribute(Arc<str>),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Vec<Argument>),
    Filter(Arc<str>, Vec<Argument>),
    Test { name: Arc<str>, arguments: Vec<Argument>, negated: bool },
}

#[derive(Debug)]
pub(super) enum Argument {
    Positional(Expr),
    Named(Arc<str>, Expr),
    /// `*list`.
    Positionals(Expr),
    /// `**dict`.
    AllNamed(Expr),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

/// The target of an assignment.
#[derive(Debug)]
pub(super) enum Target {
    Name(Arc<str>),
    /// Attribute of a namespace.
    Attribute(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) struct Stmt {
    pub(super) line: u32,
    pub(super) kind: StmtKind,
}

#[derive(Debug)]
pub(super) enum StmtKind {
    Data(Arc<str>),
    Output(Vec<Expr>),
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    For(Arc<For>),
    Set(Target, Expr),
    SetBlock(Target, Vec<Postfix>, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    Macro(Arc<Macro>),
    /// A call, its arguments, and the body that the macro can render as `caller()`.
    Call(Expr, Vec<Argument>, Arc<Macro>),
    FilterBlock(Vec<Postfix>, Vec<Stmt>),
    /// `{% generation %}`, which marks the assistant's tokens: a scope.
    Generation(Vec<Stmt>),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) iter: Expr,
    pub(super) filter: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Stmt>,
    pub(super) otherwise: Vec<Stmt>,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Arc<str>,
    pub(super) parameters: Vec<Arc<str>>,
    /// Defaults of the last parameters.
    pub(super) defaults: Vec<Expr>,
    pub(super) body: Vec<Stmt>,
    /// Whether the body uses each of [`FURTHER`], that is, accepts such arguments.
    pub(super) takes: [bool; 3],
}

/// Additional arguments that a macro accepts if its body uses them.
const FURTHER: [&str; 3] = ["varargs", "kwargs", "caller"];

/// Parses the statements of a template.
pub(super) fn parse(source: &str) -> Result<Vec<Stmt>> {
    let tokens = lexer::tokens(source)?;
    let mut parser = Parser { tokens, at: 0, nesting: 0, loops: 0, further: [0; 3] };
    let parsed = parser.statements(&[]);
    parsed.map_err(|failure| Failure { line: failure.line.or(Some(parser.line())), ..failure })
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nesting: usize,
    /// Number of enclosing loops within the same macro.
    loops: usize,
    /// How often each of [`FURTHER`] was used.
    further: [usize; 3],
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |&(_, line)| line)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(found)) if *found == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if **found == *name)
    }

    fn skip_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.peek() {
            None => "the end of the template".to_string(),
            Some(Token::Data(_) | Token::BlockBegin | Token::VariableBegin) => "the start of a tag".into(),
            Some(Token::BlockEnd) => "`%}`".into(),
            Some(Token::VariableEnd) => "`}}`".into(),
            Some(Token::Name(name)) => format!("`{}`", name.chars().take(50).collect::<String>()),
            Some(Token::Text(_)) => "a string".into(),
            Some(Token::Int(_) | Token::Float(_)) => "a number".into(),
            Some(Token::Sign(sign)) => format!("`{sign}`"),
        };
        fail(format!("expected {expected}, found {found}"))
    }

    fn sign(&mut self, sign: &str) -> Result<()> {
        if self.skip_sign(sign) { Ok(()) } else { self.unexpected(&format!("`{sign}`")) }
    }

    fn keyword(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) { Ok(()) } else { self.unexpected(&format!("`{name}`")) }
    }

    fn token(&mut self, token: Token, expected: &str) -> Result<()> {
        if self.peek() == Some(&token) {
            self.at += 1;
            return Ok(());
        }
        self.unexpected(expected)
    }

    fn block_end(&mut self) -> Result<()> {
        self.token(Token::BlockEnd, "`%}`")
    }

    fn name(&mut self) -> Result<Arc<str>> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = Arc::clone(name);
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting >= limits::MAX_NESTING {
            return fail(format!("expected at most {} nested brackets and blocks", limits::MAX_NESTING));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// Parses statements up to a tag with one of the names, which is not consumed; to the end if
    /// there are no names.
    fn statements(&mut self, until: &[&str]) -> Result<Vec<Stmt>> {
        let mut all = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.peek() {
                None if until.is_empty() => return Ok(all),
                None => return self.unexpected(&format!("`{{% {} %}}`", until[until.len() - 1])),
                Some(Token::Data(text)) => {
                    let text = Arc::clone(text);
                    self.at += 1;
                    StmtKind::Data(text)
                }
                Some(Token::VariableBegin) => {
                    self.at += 1;
                    let expr = self.tuple(true)?;
                    self.token(Token::VariableEnd, "`}}`")?;
                    StmtKind::Output(vec![expr])
                }
                Some(Token::BlockBegin) => {
                    self.at += 1;
                    if until.iter().any(|name| self.is_name(name)) {
                        return Ok(all);
                    }
                    let kind = self.nested(Self::statement)?;
                    self.block_end()?;
                    kind
                }
                _ => return self.unexpected("a tag"),
            };
            all.push(Stmt { line, kind });
        }
    }

    /// Parses a body and consumes its end tag.
    fn body(&mut self, end: &str) -> Result<Vec<Stmt>> {
        self.block_end()?;
        let body = self.statements(&[end])?;
        self.keyword(end)?;
        Ok(body)
    }

    /// Parses a statement without its final `%}`.
    fn statement(&mut self) -> Result<StmtKind> {
        let name = self.name()?;
        match &*name {
            "if" => self.condition(),
            "for" => self.for_loop(),
            "set" => self.set(),
            "with" => {
                let mut assignments = Vec::new();
                while !matches!(self.peek(), Some(Token::BlockEnd)) {
                    if !assignments.is_empty() {
                        self.sign(",")?;
                    }
                    let target = Target::Name(self.name()?);
                    self.sign("=")?;
                    assignments.push((target, self.expression(true)?));
                }
                Ok(StmtKind::With(assignments, self.body("endwith")?))
            }
            "macro" => {
                let name = self.name()?;
                let (parameters, defaults) = self.signature()?;
                let of_macro = self.macro_body(name, parameters, defaults, "endmacro")?;
                Ok(StmtKind::Macro(of_macro))
            }
            "call" => {
                let (parameters, defaults) = if self.is_sign("(") { self.signature()? } else { Default::default() };
                let Expr::Postfix(callee, mut chain) = self.expression(true)? else { return self.unexpected("a call") };
                let Some(Postfix::Call(arguments)) = chain.pop() else { return self.unexpected("a call") };
                let caller = self.macro_body("caller".into(), parameters, defaults, "endcall")?;
                Ok(StmtKind::Call(Expr::Postfix(callee, chain), arguments, caller))
            }
            "filter" => {
                let mut filters = vec![self.filter()?];
                filters.extend(self.filters()?);
                Ok(StmtKind::FilterBlock(filters, self.body("endfilter")?))
            }
            "print" => {
                let mut all = vec![self.expression(true)?];
                while self.skip_sign(",") {
                    all.push(self.expression(true)?);
                }
                Ok(StmtKind::Output(all))
            }
            "generation" => {
                let loops = std::mem::take(&mut self.loops);
                let body = self.body("endgeneration")?;
                self.loops = loops;
                Ok(StmtKind::Generation(body))
            }
            "break" | "continue" if self.loops == 0 => fail(format!("`{name}` outside of a loop")),
            "break" => Ok(StmtKind::Break),
            "continue" => Ok(StmtKind::Continue),
            "include" | "import" | "from" | "extends" | "block" | "autoescape" => {
                fail(format!("`{{% {name} %}}` is not supported: a chat template cannot use other files"))
            }
            _ => fail(format!("unknown tag `{}`", name.chars().take(50).collect::<String>())),
        }
    }

    fn condition(&mut self) -> Result<StmtKind> {
        let mut arms = Vec::new();
        loop {
            let test = self.tuple(false)?;
            self.block_end()?;
            arms.push((test, self.statements(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            let otherwise = if self.skip_name("else") { self.body("endif")? } else { self.end_if()? };
            return Ok(StmtKind::If(arms, otherwise));
        }
    }

    fn end_if(&mut self) -> Result<Vec<Stmt>> {
        self.keyword("endif")?;
        Ok(Vec::new())
    }

    fn for_loop(&mut self) -> Result<StmtKind> {
        let target = self.target(false)?;
        self.keyword("in")?;
        let iter = self.tuple(false)?;
        let filter = if self.skip_name("if") { Some(self.expression(true)?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_end()?;
        self.loops += 1;
        let body = self.statements(&["else", "endfor"])?;
        self.loops -= 1;
        let mut otherwise = Vec::new();
        if self.skip_name("else") {
            otherwise = self.body("endfor")?;
        } else {
            self.keyword("endfor")?;
        }
        Ok(StmtKind::For(Arc::new(For { target, iter, filter, recursive, body, otherwise })))
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.target(true)?;
        if self.skip_sign("=") {
            return Ok(StmtKind::Set(target, self.tuple(true)?));
        }
        let filters = self.filters()?;
        Ok(StmtKind::SetBlock(target, filters, self.body("endset")?))
    }

    /// Parses one target, or several separated by commas.
    fn target(&mut self, attributes: bool) -> Result<Target> {
        let mut all = Vec::new();
        let mut tuple = false;
        loop {
            if self.skip_sign("(") {
                all.push(self.nested(|parser| parser.target(attributes))?);
                self.sign(")")?;
            } else {
                let name = self.name()?;
                if matches!(&*name, "true" | "True" | "false" | "False" | "none" | "None") {
                    return fail(format!("cannot assign to `{name}`"));
                }
                let attribute = attributes && self.skip_sign(".");
                all.push(if attribute { Target::Attribute(name, self.name()?) } else { Target::Name(name) });
            }
            if !self.skip_sign(",") {
                break;
            }
            tuple = true;
            if !self.is_sign("(") && !matches!(self.peek(), Some(Token::Name(name)) if &**name != "in") {
                break;
            }
        }
        match all.pop() {
            Some(only) if !tuple => Ok(only),
            last => {
                all.extend(last);
                Ok(Target::Tuple(all))
            }
        }
    }

    fn signature(&mut self) -> Result<(Vec<Arc<str>>, Vec<Expr>)> {
        let (mut parameters, mut defaults) = (Vec::new(), Vec::new());
        self.sign("(")?;
        while !self.skip_sign(")") {
            if !parameters.is_empty() {
                self.sign(",")?;
            }
            let name = self.name()?;
            if parameters.contains(&name) {
                return fail(format!("duplicate parameter `{name}`"));
            }
            if self.skip_sign("=") {
                defaults.push(self.expression(true)?);
            } else if !defaults.is_empty() {
                return fail(format!("parameter `{name}` without a default after one with a default"));
            }
            parameters.push(name);
            if parameters.len() > 100 {
                return fail("expected at most 100 parameters of a macro");
            }
        }
        Ok((parameters, defaults))
    }

    fn macro_body(
        &mut self,
        name: Arc<str>,
        parameters: Vec<Arc<str>>,
        defaults: Vec<Expr>,
        end: &str,
    ) -> Result<Arc<Macro>> {
        let loops = std::mem::take(&mut self.loops);
        let before = self.further;
        let body = self.body(end)?;
        self.loops = loops;
        let takes = [0, 1, 2].map(|i| self.further[i] > before[i]);
        Ok(Arc::new(Macro { name, parameters, defaults, body, takes }))
    }

    /// Parses an expression, or several separated by commas as a tuple.
    fn tuple(&mut self, conditional: bool) -> Result<Expr> {
        let first = self.expression(conditional)?;
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_sign(",") {
            let ends = matches!(self.peek(), Some(Token::VariableEnd | Token::BlockEnd)) || self.is_sign(")");
            if ends || self.is_name("recursive") {
                break;
            }
            items.push(self.expression(conditional)?);
        }
        Ok(Expr::Tuple(items))
    }

    fn expression(&mut self, conditional: bool) -> Result<Expr> {
        self.nested(|parser| if conditional { parser.conditional() } else { parser.or() })
    }

    /// `a if b else c if d else e`.
    fn conditional(&mut self) -> Result<Expr> {
        let mut value = self.or()?;
        let mut arms = Vec::new();
        while self.skip_name("if") {
            let test = self.or()?;
            arms.push((test, value));
            if !self.skip_name("else") {
                return Ok(Expr::If(arms, None));
            }
            value = self.or()?;
        }
        Ok(if arms.is_empty() { value } else { Expr::If(arms, Some(Box::new(value))) })
    }

    /// Parses operands separated by a keyword, or a single one.
    fn joined(&mut self, name: &str, operand: fn(&mut Self) -> Result<Expr>) -> Result<(Vec<Expr>, Option<Expr>)> {
        let first = operand(self)?;
        if !self.is_name(name) {
            return Ok((Vec::new(), Some(first)));
        }
        let mut all = vec![first];
        while self.skip_name(name) {
            all.push(operand(self)?);
        }
        Ok((all, None))
    }

    fn or(&mut self) -> Result<Expr> {
        let (all, only) = self.joined("or", Self::and)?;
        Ok(only.unwrap_or(Expr::Or(all)))
    }

    fn and(&mut self) -> Result<Expr> {
        let (all, only) = self.joined("and", Self::not)?;
        Ok(only.unwrap_or(Expr::And(all)))
    }

    fn not(&mut self) -> Result<Expr> {
        // Only the parity of repeated `not`s matters, and whether there is any.
        let mut count = 0;
        while self.skip_name("not") {
            count += 1;
        }
        let mut expr = self.compare()?;
        for _ in 0..if count > 1 { 2 - count % 2 } else { count } {
            expr = Expr::Not(Box::new(expr));
        }
        Ok(expr)
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let (comparison, len) = match self.peek()? {
            Token::Sign("==") => (Comparison::Equal, 1),
            Token::Sign("!=") => (Comparison::NotEqual, 1),
            Token::Sign("<") => (Comparison::Less, 1),
            Token::Sign("<=") => (Comparison::LessEqual, 1),
            Token::Sign(">") => (Comparison::Greater, 1),
            Token::Sign(">=") => (Comparison::GreaterEqual, 1),
            Token::Name(name) if &**name == "in" => (Comparison::In, 1),
            Token::Name(name) if &**name == "not" => match self.tokens.get(self.at + 1) {
                Some((Token::Name(name), _)) if &**name == "in" => (Comparison::NotIn, 2),
                _ => return None,
            },
            _ => return None,
        };
        self.at += len;
        Some(comparison)
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut chain = Vec::new();
        while let Some(comparison) = self.comparison() {
            chain.push((comparison, self.sum()?));
        }
        Ok(if chain.is_empty() { first } else { Expr::Compare(Box::new(first), chain) })
    }

    /// Parses operands of one precedence.
    fn chain(&mut self, signs: &[(&str, Operator)], operand: fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let first = operand(self)?;
        let mut chain = Vec::new();
        while let Some(&(_, operator)) = signs.iter().find(|(sign, _)| self.is_sign(sign)) {
            self.at += 1;
            chain.push((operator, operand(self)?));
        }
        Ok(if chain.is_empty() { first } else { Expr::Arithmetic(Box::new(first), chain) })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_sign("~") {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.skip_sign("~") {
            all.push(self.product()?);
        }
        Ok(Expr::Concat(all))
    }

    fn product(&mut self) -> Result<Expr> {
        let signs = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Modulo),
        ];
        self.chain(&signs, |parser| parser.chain(&[("**", Operator::Power)], |parser| parser.unary(true)))
    }

    fn unary(&mut self, filters: bool) -> Result<Expr> {
        let sign = if self.skip_sign("-") {
            Some(Expr::Negative as fn(Box<Expr>) -> Expr)
        } else if self.skip_sign("+") {
            Some(Expr::Positive as fn(Box<Expr>) -> Expr)
        } else {
            None
        };
        let expr = match sign {
            Some(sign) => sign(Box::new(self.nested(|parser| parser.unary(false))?)),
            None => self.primary()?,
        };
        self.postfix(expr, filters)
    }

    fn primary(&mut self) -> Result<Expr> {
        let Some(token) = self.peek().cloned() else { return self.unexpected("a value") };
        let expr = match token {
            Token::Name(name) => Expr::from_name(name),
            Token::Int(number) => Expr::Literal(Literal::Int(number)),
            Token::Float(number) => Expr::Literal(Literal::Float(number)),
            Token::Text(text) => return Ok(self.text(text)),
            Token::Sign("(") => {
                self.at += 1;
                if self.skip_sign(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let inner = self.tuple(true)?;
                self.sign(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => {
                self.at += 1;
                return self.items("]", |parser| parser.expression(true)).map(Expr::List);
            }
            Token::Sign("{") => {
                self.at += 1;
                let entry = |parser: &mut Self| {
                    let key = parser.expression(true)?;
                    parser.sign(":")?;
                    Ok((key, parser.expression(true)?))
                };
                return self.items("}", entry).map(Expr::Dict);
            }
            _ => return self.unexpected("a value"),
        };
        if let Expr::Name(name) = &expr {
            for (further, count) in FURTHER.iter().zip(&mut self.further) {
                *count += usize::from(**name == **further);
            }
        }
        self.at += 1;
        Ok(expr)
    }

    /// Concatenates adjacent string literals.
    fn text(&mut self, first: Arc<str>) -> Expr {
        self.at += 1;
        let mut more = String::new();
        while let Some(Token::Text(next)) = self.peek() {
            more += next;
            self.at += 1;
        }
        let text = if more.is_empty() { first } else { (first.to_string() + &more).into() };
        Expr::Literal(Literal::Text(text))
    }

    /// Parses comma-separated items up to a closing sign.
    fn items<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while !self.skip_sign(end) {
            if !all.is_empty() {
                self.sign(",")?;
                if self.skip_sign(end) {
                    break;
                }
            }
            all.push(item(self)?);
        }
        Ok(all)
    }

    fn postfix(&mut self, expr: Expr, filters: bool) -> Result<Expr> {
        let mut chain = Vec::new();
        let mut filtered = false;
        loop {
            if self.is_sign("(") {
                chain.push(Postfix::Call(self.arguments()?));
            } else if !filtered && self.skip_sign(".") {
                chain.push(match self.peek() {
                    Some(Token::Int(number)) => Postfix::Item(Expr::Literal(Literal::Int(*number))),
                    Some(Token::Name(name)) => Postfix::Attribute(Arc::clone(name)),
                    _ => return self.unexpected("a name or number"),
                });
                self.at += 1;
            } else if !filtered && self.skip_sign("[") {
                chain.push(self.subscript()?);
            } else if filters && self.skip_sign("|") {
                filtered = true;
                chain.push(self.filter()?);
            } else if filters && self.skip_name("is") {
                filtered = true;
                chain.push(self.test()?);
            } else {
                break;
            }
        }
        Ok(if chain.is_empty() { expr } else { Expr::Postfix(Box::new(expr), chain) })
    }

    fn subscript(&mut self) -> Result<Postfix> {
        let mut parts = [None, None, None];
        let mut part = 0;
        while !self.skip_sign("]") {
            if self.skip_sign(":") {
                part += 1;
                if part == 3 {
                    return self.unexpected("`]`");
                }
            } else if parts[part].is_none() {
                parts[part] = Some(self.tuple(true)?);
            } else {
                return self.unexpected("`]`");
            }
        }
        match parts {
            [Some(item), None, None] if part == 0 => Ok(Postfix::Item(item)),
            _ if part == 0 => fail("expected an index in `[]`, found nothing"),
            parts => Ok(Postfix::Slice(Box::new(parts))),
        }
    }

    fn dotted(&mut self) -> Result<Arc<str>> {
        let name = self.name()?;
        if !self.is_sign(".") {
            return Ok(name);
        }
        let mut dotted = name.to_string();
        while self.skip_sign(".") {
            dotted = dotted + "." + &self.name()?;
        }
        Ok(dotted.into())
    }

    fn filter(&mut self) -> Result<Postfix> {
        let name = self.dotted()?;
        let arguments = if self.is_sign("(") { self.arguments()? } else { Vec::new() };
        Ok(Postfix::Filter(name, arguments))
    }

    fn filters(&mut self) -> Result<Vec<Postfix>> {
        let mut all = Vec::new();
        while self.skip_sign("|") {
            all.push(self.filter()?);
        }
        Ok(all)
    }

    fn test(&mut self) -> Result<Postfix> {
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let arguments = match self.peek() {
            Some(Token::Sign("(")) => self.arguments()?,
            Some(Token::Name(name)) if matches!(&**name, "else" | "or" | "and") => Vec::new(),
            Some(Token::Name(name)) if &**name == "is" => return fail("a test after a test needs parentheses"),
            Some(Token::Name(_) | Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Sign("[" | "{")) => {
                let argument = self.nested(|parser| {
                    let value = parser.primary()?;
                    parser.postfix(value, false)
                })?;
                vec![Argument::Positional(argument)]
            }
            _ => Vec::new(),
        };
        Ok(Postfix::Test { name, arguments, negated })
    }

    fn arguments(&mut self) -> Result<Vec<Argument>> {
        self.sign("(")?;
        self.items(")", |parser| {
            if parser.skip_sign("*") {
                return parser.expression(true).map(Argument::Positionals);
            }
            if parser.skip_sign("**") {
                return parser.expression(true).map(Argument::AllNamed);
            }
            let named = matches!(parser.tokens.get(parser.at + 1), Some((Token::Sign("="), _)));
            match parser.peek() {
                Some(Token::Name(name)) if named => {
                    let name = Arc::clone(name);
                    parser.at += 2;
                    Ok(Argument::Named(name, parser.expression(true)?))
                }
                _ => parser.expression(true).map(Argument::Positional),
            }
        })
    }
}

impl Expr {
    fn from_name(name: Arc<str>) -> Self {
        match &*name {
            "true" | "True" => Expr::Literal(Literal::Bool(true)),
            "false" | "False" => Expr::Literal(Literal::Bool(false)),
            "none" | "None" => Expr::Literal(Literal::None),
            _ => Expr::Name(name),
        }
    }
}
