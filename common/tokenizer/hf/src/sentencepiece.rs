//! tokenizer.model of sentencepiece (BPE) as the tokenizer.json that transformers makes of it. Source of the fields:
//! sentencepiece, src/sentencepiece_model.proto.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{json, Map, Value};

type Outcome<T> = Result<T, String>;

const SPACE: &str = "\u{2581}";
const MODEL_BPE: u64 = 2;
/// Pieces in use are below 200 bytes; all ways to split one are tried.
const PIECE_BYTES_MAX: usize = 4096;

/// SentencePiece.Type
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

struct Model {
    pieces: Vec<Piece>,
    kind: u64,
    byte_fallback: bool,
    suffix: bool,
    character_map: bool,
    dummy_prefix: bool,
    fewer_spaces: bool,
}

/// One field of a protobuf message: its number and what it holds.
enum Field<'a> {
    Number(u64),
    Bits32(u32),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Outcome<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("it ends inside a number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is longer than ten bytes".to_owned())
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Outcome<&'a [u8]> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > bytes.len() {
        return Err(format!("a field of {count} bytes has {} left", bytes.len()));
    }
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    Ok(taken)
}

/// Calls `each` for every field of a message.
fn fields<'a>(mut bytes: &'a [u8], mut each: impl FnMut(u64, Field<'a>) -> Outcome<()>) -> Outcome<()> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => {
                take(&mut bytes, 8)?;
                continue;
            }
            2 => {
                let count = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, count)?)
            }
            5 => {
                let raw = take(&mut bytes, 4)?;
                Field::Bits32(u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
            }
            kind => return Err(format!("a field has the unknown wire type {kind}")),
        };
        each(tag >> 3, field)?;
    }
    Ok(())
}

fn read_piece(bytes: &[u8]) -> Outcome<Piece> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: 1,
    };
    fields(bytes, |number, field| {
        match (number, field) {
            (1, Field::Bytes(text)) if text.len() > PIECE_BYTES_MAX => {
                return Err(format!("a piece has {} bytes, at most {PIECE_BYTES_MAX} are read", text.len()));
            }
            (1, Field::Bytes(text)) => {
                piece.text = String::from_utf8(text.to_vec()).map_err(|_| "a piece is not UTF-8".to_owned())?;
            }
            (2, Field::Bits32(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Number(kind)) => piece.kind = kind,
            _ => {}
        }
        Ok(())
    })?;
    Ok(piece)
}

fn read_model(bytes: &[u8]) -> Outcome<Model> {
    let mut model = Model {
        pieces: Vec::new(),
        kind: 1,
        byte_fallback: false,
        suffix: false,
        character_map: false,
        dummy_prefix: true,
        fewer_spaces: true,
    };
    fields(bytes, |number, field| {
        match (number, field) {
            (1, Field::Bytes(piece)) => model.pieces.push(read_piece(piece)?),
            (2, Field::Bytes(trainer)) => fields(trainer, |number, field| {
                match (number, field) {
                    (3, Field::Number(kind)) => model.kind = kind,
                    (24, Field::Number(flag)) => model.suffix = flag != 0,
                    (35, Field::Number(flag)) => model.byte_fallback = flag != 0,
                    _ => {}
                }
                Ok(())
            })?,
            (3, Field::Bytes(normalizer)) => fields(normalizer, |number, field| {
                match (number, field) {
                    (2, Field::Bytes(map)) => model.character_map = !map.is_empty(),
                    (3, Field::Number(flag)) => model.dummy_prefix = flag != 0,
                    (4, Field::Number(flag)) => model.fewer_spaces = flag != 0,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(model)
}

/// What the conversion cannot carry over is refused by name.
fn check(model: &Model) -> Outcome<()> {
    if model.pieces.is_empty() {
        return Err("it has no pieces".to_owned());
    }
    if model.kind != MODEL_BPE {
        return Err(format!(
            "its model type is {} (1 unigram, 3 word, 4 char); only 2 (BPE) is converted: make a tokenizer.json of it",
            model.kind
        ));
    }
    let reason = match model {
        m if m.suffix => "treat_whitespace_as_suffix",
        m if m.character_map => "precompiled_charsmap",
        m if m.fewer_spaces => "remove_extra_whitespaces",
        _ => return Ok(()),
    };
    Err(format!("it uses {reason}, which is not converted: make a tokenizer.json of it"))
}

/// Every way to make a piece of two others, the piece of the best score first.
fn merges(model: &Model, ids: &HashMap<&str, usize>) -> Vec<Value> {
    let mut found = Vec::new();
    for piece in &model.pieces {
        if matches!(piece.kind, UNKNOWN | CONTROL | UNUSED | BYTE) {
            continue;
        }
        let mut local = Vec::new();
        for (chars, (at, _)) in piece.text.char_indices().enumerate().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                local.push((l, r, piece.score, chars, right.chars().count()));
            }
        }
        local.sort_by_key(|&(l, r, ..)| (l, r));
        found.extend(local);
    }
    found.sort_by(|a, b| {
        let by_score = b.2.partial_cmp(&a.2).unwrap_or(Ordering::Equal);
        by_score.then(b.3.cmp(&a.3)).then(b.4.cmp(&a.4))
    });
    found
        .into_iter()
        .map(|(l, r, ..)| json!([model.pieces[l].text, model.pieces[r].text]))
        .collect()
}

fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": special})
}

/// Special and user-defined pieces, then what tokenizer_config.json adds, which wins.
fn added_tokens(model: &Model, config: &Value) -> Outcome<Vec<Value>> {
    let mut tokens: Vec<(usize, Value)> = Vec::new();
    for (id, piece) in model.pieces.iter().enumerate() {
        if matches!(piece.kind, UNKNOWN | CONTROL | USER_DEFINED) {
            tokens.push((id, added_token(id, &piece.text, piece.kind != USER_DEFINED)));
        }
    }
    let more = config.get("added_tokens_decoder").and_then(Value::as_object);
    for (id, token) in more.into_iter().flatten() {
        let wrong = || format!("added_tokens_decoder has the unusable entry \"{id}\"");
        let number: usize = id.parse().map_err(|_| wrong())?;
        let mut token = token.as_object().ok_or_else(wrong)?.clone();
        if number >= model.pieces.len() + more.map_or(0, Map::len) || !token.contains_key("content") {
            return Err(wrong());
        }
        token.insert("id".to_owned(), json!(number));
        tokens.retain(|(known, _)| *known != number);
        tokens.push((number, Value::Object(token)));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

/// BOS before and EOS behind a text, as add_bos_token (true where absent) and add_eos_token (false) say.
fn post_processor(config: &Value, ids: &HashMap<&str, usize>) -> Outcome<Value> {
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let pair = json!([text.clone(), {"Sequence": {"id": "B", "type_id": 1}}]);
    let mut single = vec![text];
    let mut special = Map::new();
    for (flag, default, key, usual) in [
        ("add_bos_token", true, "bos_token", "<s>"),
        ("add_eos_token", false, "eos_token", "</s>"),
    ] {
        if !config.get(flag).and_then(Value::as_bool).unwrap_or(default) {
            continue;
        }
        let named = config.get(key).map(|token| token.get("content").unwrap_or(token));
        let token = named.and_then(Value::as_str).unwrap_or(usual);
        let id = *ids.get(token).ok_or_else(|| format!("its {key} \"{token}\" is no piece"))?;
        let at = if key == "bos_token" { 0 } else { single.len() };
        single.insert(at, json!({"SpecialToken": {"id": token, "type_id": 0}}));
        special.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
    }
    Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}))
}

/// The text of a tokenizer.json. `config` is tokenizer_config.json, or empty.
pub fn to_json(bytes: &[u8], config: &[u8]) -> Outcome<String> {
    let config: Value = match config {
        [] => json!({}),
        text => serde_json::from_slice(text).map_err(|e| format!("tokenizer_config.json: {e}"))?,
    };
    let model = read_model(bytes)?;
    check(&model)?;
    let mut ids = HashMap::with_capacity(model.pieces.len());
    for (id, piece) in model.pieces.iter().enumerate() {
        if ids.insert(piece.text.as_str(), id).is_some() {
            return Err(format!("the piece \"{}\" stands twice", piece.text));
        }
    }
    let vocab: Map<String, Value> = ids.iter().map(|(text, id)| ((*text).to_owned(), json!(id))).collect();
    let unknown = model.pieces.iter().find(|piece| piece.kind == UNKNOWN);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if model.dummy_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let whole = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&model, &config)?,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": post_processor(&config, &ids)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown.map(|piece| &piece.text),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": model.byte_fallback, "ignore_merges": false,
            "vocab": vocab, "merges": merges(&model, &ids),
        },
    });
    Ok(whole.to_string())
}
