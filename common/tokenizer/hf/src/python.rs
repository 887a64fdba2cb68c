//! How Python writes values: str(), repr() and json.dumps(ensure_ascii=False). Chat templates are written for it.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use unicode_categories::UnicodeCategories;

/// Containers in containers, at most; a value from outside must not exhaust the stack.
const DEPTH_MAX: usize = 64;

fn too_deep() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("a value is nested more than {DEPTH_MAX} deep"),
    )
}

/// str(value); an undefined value is nothing, as Jinja prints it.
pub fn text(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut out = String::new();
            repr(value, &mut out, 0)?;
            Ok(out)
        }
    }
}

fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::String => repr_string(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => number(value, out),
        // A slice or a sum of lists is an iterator here and a list there.
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.to_string().starts_with('(');
            let (open, close) = if tuple { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter()? {
                out.push_str(if count == 0 { "" } else { ", " });
                repr(&item, out, depth + 1)?;
                count += 1;
            }
            out.push_str(if tuple && count == 1 { "," } else { "" });
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Bool | ValueKind::None => out.push_str(&value.to_string()),
        kind => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("printing a value of kind {kind} is not supported"),
            ))
        }
    }
    Ok(())
}

/// Single quotes unless only double ones need no escape.
fn repr_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => escape(c as u32, out),
        }
    }
    out.push(quote);
}

fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_other_format()
            || c.is_other_private_use()
            || c.is_separator_line()
            || c.is_separator_paragraph()
            || c.is_separator_space())
}

fn escape(code: u32, out: &mut String) {
    let written = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok());
}

fn number(value: &Value, out: &mut String) {
    if value.is_integer() {
        out.push_str(&value.to_string());
    } else {
        float(f64::try_from(value.clone()).unwrap_or(f64::NAN), out);
    }
}

/// The shortest digits that give the number back; an exponent below 1e-4 and from 1e16 on, of two digits at least.
fn float(number: f64, out: &mut String) {
    if !number.is_finite() {
        out.push_str(match number {
            n if n.is_nan() => "nan",
            n if n > 0.0 => "inf",
            _ => "-inf",
        });
        return;
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        out.push_str(&plain);
        out.push_str(if plain.contains('.') { "" } else { ".0" });
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("{digits}e{sign}{:02}", exponent.abs()));
    }
}

/// The layout of json.dumps.
pub struct JsonStyle {
    pub indent: Option<usize>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

pub fn json(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    json_value(value, style, &mut out, 0)?;
    Ok(out)
}

fn json_value(value: &Value, style: &JsonStyle, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::String => json_string(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => json_number(value, out),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::None => out.push_str("null"),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            json_container(('[', ']'), items.len(), style, out, depth, |index, out| {
                json_value(&items[index], style, out, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            json_container(('{', '}'), keys.len(), style, out, depth, |index, out| {
                json_key(&keys[index], out)?;
                out.push_str(&style.key_separator);
                json_value(&value.get_item(&keys[index])?, style, out, depth + 1)
            })?;
        }
        kind => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("a value of kind {kind} is not JSON serializable"),
            ))
        }
    }
    Ok(())
}

fn json_container(
    (open, close): (char, char),
    count: usize,
    style: &JsonStyle,
    out: &mut String,
    depth: usize,
    mut item: impl FnMut(usize, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |out: &mut String, depth: usize| {
        if let (Some(indent), true) = (style.indent, count > 0) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth)));
        }
    };
    out.push(open);
    for index in 0..count {
        if index > 0 {
            out.push_str(&style.item_separator);
        }
        line(out, depth + 1);
        item(index, out)?;
    }
    line(out, depth);
    out.push(close);
    Ok(())
}

/// Keys that are no strings become strings, as json.dumps makes them.
fn json_key(key: &Value, out: &mut String) -> Result<(), Error> {
    match key.kind() {
        ValueKind::String => json_string(key.as_str().unwrap_or_default(), out),
        ValueKind::Number | ValueKind::Bool | ValueKind::None => {
            let mut text = String::new();
            match key.kind() {
                ValueKind::Number => json_number(key, &mut text),
                ValueKind::None => text.push_str("null"),
                _ => text.push_str(if key.is_true() { "true" } else { "false" }),
            }
            json_string(&text, out);
        }
        kind => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("a key of kind {kind} is not JSON serializable"),
            ))
        }
    }
    Ok(())
}

fn json_number(value: &Value, out: &mut String) {
    let mut text = String::new();
    number(value, &mut text);
    out.push_str(match text.as_str() {
        "nan" => "NaN",
        "inf" => "Infinity",
        "-inf" => "-Infinity",
        finite => finite,
    });
}

fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// What str.isspace calls white space; wider than Unicode's White_Space by four separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// str.splitlines.
pub fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let breaks = |c: char| matches!(c, '\n' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut out = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '\r' && !breaks(c) {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|&(_, next)| next == '\n').is_some() {
            end += 1;
        }
        out.push(&text[start..if keep_ends { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        out.push(&text[start..]);
    }
    out
}
