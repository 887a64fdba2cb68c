//! Chat templates as transformers renders them: Jinja with trim_blocks and lstrip_blocks, Python's printing and methods,
//! loop controls, `{% generation %}`, raise_exception and strftime_now. What cannot be rendered is an error with its line.

use std::collections::BTreeMap;
use std::ffi::CString;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{from_args, Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use minijinja_contrib::pycompat;

use crate::python::{self, JsonStyle};

/// Steps of one rendering, at most: a template from outside may loop for ever.
const FUEL: u64 = 50_000_000;
/// Bytes of one date, at most.
const DATE_BYTES: usize = 256;
const NAME: &str = "chat";

pub struct Template {
    environment: Environment<'static>,
}

impl Template {
    pub fn new(source: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| sentence(&e))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(|out, _state, value| out.write_str(&python::text(value)?).map_err(Error::from));
        environment.set_unknown_method_callback(method);
        environment.add_filter("tojson", tojson);
        environment.add_filter("string", |value: &Value| python::text(value));
        environment.add_filter("trim", trim);
        environment.add_filter("join", join);
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|e| sentence(&e))?;
        Ok(Self { environment })
    }

    /// `variables` is a JSON object; `now` is what strftime_now prints, in seconds since 1970, UTC.
    pub fn render(&self, variables: &[u8], now: i64) -> Result<String, String> {
        let variables: Value =
            serde_json::from_slice(variables).map_err(|e| format!("the variables are not JSON: {e}"))?;
        if variables.kind() != ValueKind::Map {
            return Err("the variables are not a JSON object".to_owned());
        }
        let mut context = BTreeMap::new();
        for name in variables.try_iter().map_err(|e| sentence(&e))? {
            let value = variables.get_item(&name).map_err(|e| sentence(&e))?;
            context.insert(python::text(&name).map_err(|e| sentence(&e))?, value);
        }
        let date = Value::from_function(move |format: &str| strftime(format, now));
        context.insert("strftime_now".to_owned(), date);
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from(context)))
            .map_err(|e| sentence(&e))
    }
}

/// "line 3: what": the innermost cause speaks.
fn sentence(error: &Error) -> String {
    let detail = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    match error.line() {
        Some(line) => format!("line {line}: {detail}"),
        None => detail,
    }
}

fn refuse(detail: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(refuse(format!("the template refuses: {message}")))
}

fn tojson(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<String, Error> {
    let ascii = ensure_ascii.or(options.get("ensure_ascii")?).unwrap_or(false);
    if ascii {
        return Err(refuse("tojson(ensure_ascii=true) is not supported".to_owned()));
    }
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let (item_separator, key_separator) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(refuse("tojson's separators are not two strings".to_owned())),
    };
    let style = JsonStyle {
        indent,
        item_separator,
        key_separator,
        sort_keys: sort_keys.unwrap_or(false),
    };
    python::json(value, &style)
}

fn trim(value: &Value, chars: Option<&str>) -> Result<String, Error> {
    Ok(strip(&python::text(value)?, chars, true, true).to_owned())
}

fn join(value: &Value, separator: Option<&str>, attribute: Option<&str>, options: Kwargs) -> Result<String, Error> {
    let separator: Option<&str> = separator.or(options.get("d")?);
    let attribute: Option<&str> = attribute.or(options.get("attribute")?);
    options.assert_all_used()?;
    let mut parts = Vec::new();
    for item in value.try_iter()? {
        let item = attribute.map_or(Ok(item.clone()), |name| item.get_attr(name))?;
        parts.push(python::text(&item)?);
    }
    Ok(parts.join(separator.unwrap_or("")))
}

fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| python::is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right {
        text.trim_end_matches(drop)
    } else {
        text
    }
}

/// Python's methods; those whose notion of white space or of a line differs from Rust's are ours.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, name, args);
    };
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(strip(text, chars, name != "rstrip", name != "lstrip")))
        }
        "split" if args.is_empty() => Ok(text
            .split(python::is_space)
            .filter(|part| !part.is_empty())
            .map(Value::from)
            .collect()),
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(args)?;
            let lines = python::lines(text, keep_ends.unwrap_or(false));
            Ok(lines.into_iter().map(Value::from).collect())
        }
        "rsplit" => {
            let (separator, most): (&str, Option<usize>) = from_args(args)?;
            let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<Value> = text.rsplitn(most, separator).map(Value::from).collect();
            parts.reverse();
            Ok(Value::from(parts))
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            let at = text.find(part).ok_or_else(|| refuse("substring not found".to_owned()))?;
            Ok(Value::from(text[..at].chars().count()))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            let mut parts = Vec::new();
            for item in items.try_iter()? {
                let part = item.as_str().map(str::to_owned);
                parts.push(part.ok_or_else(|| refuse(format!("join of a value of kind {}", item.kind())))?);
            }
            Ok(Value::from(parts.join(text)))
        }
        "format" => {
            let (args,): (Rest<Value>,) = from_args(args)?;
            pycompat::unknown_method_callback(state, value, name, &args)
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// The date in UTC by the C library, as Python does it.
fn strftime(format: &str, now: i64) -> Result<String, Error> {
    let wanted = CString::new(format).map_err(|_| refuse("strftime_now: the format has a zero byte".to_owned()))?;
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    let mut out = [0u8; DATE_BYTES];
    // SAFETY: both structures are ours, the format ends in a zero byte, and no more than the buffer is written.
    let written = unsafe {
        if libc::gmtime_r(&now, &mut parts).is_null() {
            return Err(refuse(format!("strftime_now: {now} seconds since 1970 is no date")));
        }
        libc::strftime(out.as_mut_ptr().cast(), out.len(), wanted.as_ptr(), &parts)
    };
    if written == 0 && !format.is_empty() {
        return Err(refuse(format!("strftime_now: the date is longer than {DATE_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&out[..written]).into_owned())
}

/// `{% generation %}` marks what an assistant said, for training; it only opens a scope here.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%").into_iter().chain(rest.find("{#")).chain(rest.find("{{")).min() {
        let (open, close) = (&rest[at..at + 2], match &rest[at + 1..at + 2] {
            "%" => "%}",
            "#" => "#}",
            _ => "}}",
        });
        out.push_str(&rest[..at]);
        let length = match tag_length(&rest[at..], close, open == "{#") {
            Some(length) => length,
            None => break,
        };
        let tag = &rest[at..at + length];
        let word = tag[2..].trim_start_matches(['-', '+']).split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        match word.filter(|word| !word.is_empty()).next() {
            Some(word @ ("generation" | "endgeneration")) if open == "{%" => {
                out.push_str(&tag.replacen(word, if word == "generation" { "with" } else { "endwith" }, 1));
            }
            _ => out.push_str(tag),
        }
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

/// Bytes of a tag up to and including its end, which does not stand inside a string; None when it has no end.
fn tag_length(tag: &str, close: &str, comment: bool) -> Option<usize> {
    let mut quote: Option<u8> = None;
    let bytes = tag.as_bytes();
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), b) if b == open => quote = None,
            (Some(_), _) => {}
            (None, b) if !comment && (b == b'"' || b == b'\'') => quote = Some(b),
            (None, _) if tag[at..].starts_with(close) => return Some(at + 2),
            (None, _) => {}
        }
        at += 1;
    }
    None
}
