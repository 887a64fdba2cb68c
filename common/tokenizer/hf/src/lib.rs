//! The tokenizers library and chat templates behind C functions; assay_hf.h is the contract. Panics stop at this boundary and become errors.

mod chat;
mod python;
mod sentencepiece;

use std::ffi::{c_char, c_int, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::slice;
use std::sync::Once;

use tokenizers::utils::truncation::{truncate_encodings, TruncationParams};
use tokenizers::{Encoding, PostProcessor, Tokenizer};

extern "C" {
    fn malloc(bytes: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
}

type Outcome<T> = Result<T, String>;

/// A slice over memory of the caller. C may pass NULL for an empty one, Rust may not.
unsafe fn borrow<'a, T>(data: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        &[]
    } else {
        slice::from_raw_parts(data, count)
    }
}

/// Puts a sentence into error[error_bytes], cut at a character, NUL-terminated.
unsafe fn report(sentence: &str, error: *mut c_char, error_bytes: usize) {
    if error_bytes == 0 {
        return;
    }
    let mut len = sentence.len().min(error_bytes - 1);
    while !sentence.is_char_boundary(len) {
        len -= 1;
    }
    ptr::copy_nonoverlapping(sentence.as_ptr(), error.cast::<u8>(), len);
    *error.add(len) = 0;
}

/// Runs `work`; an error or a panic becomes a sentence and 1.
unsafe fn guard(work: impl FnOnce() -> Outcome<()>, error: *mut c_char, error_bytes: usize) -> c_int {
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let reason = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("unknown reason");
        Err(format!("the library gave up: {reason}"))
    });
    match outcome {
        Ok(()) => 0,
        Err(sentence) => {
            report(&sentence, error, error_bytes);
            1
        }
    }
}

/// Memory that C frees: the elements, and one zero byte behind them.
unsafe fn hand_out<T: Copy>(elements: &[T]) -> Outcome<*mut T> {
    let bytes = std::mem::size_of_val(elements);
    let memory = malloc(bytes + 1).cast::<T>();
    if memory.is_null() {
        return Err(format!("out of memory for {bytes} bytes"));
    }
    ptr::copy_nonoverlapping(elements.as_ptr(), memory, elements.len());
    *memory.cast::<u8>().add(bytes) = 0;
    Ok(memory)
}

/// A layer under a program does not print; the reason of a panic travels in the error.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

fn parse(json: &[u8]) -> Outcome<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn whole(values: &[u32]) -> Outcome<Vec<i32>> {
    values
        .iter()
        .map(|&id| i32::try_from(id).map_err(|_| format!("token id {id} is above 2147483647")))
        .collect()
}

fn encode(tokenizer: &Tokenizer, text: &[u8], special: bool) -> Outcome<Vec<i32>> {
    let text = String::from_utf8_lossy(text);
    let encoding = tokenizer
        .encode_fast(text.as_ref(), special)
        .map_err(|e| e.to_string())?;
    whole(encoding.get_ids())
}

/// A text, or a pair of texts, with special tokens; of one that is too long the longer text loses its last tokens, as many
/// as it takes, then both do.
fn encode_within(tokenizer: &Tokenizer, text: &[u8], pair: Option<&[u8]>, most: usize) -> Outcome<Encoding> {
    let text = String::from_utf8_lossy(text);
    let pair = pair.map(String::from_utf8_lossy);
    let plain = |text: &str| tokenizer.encode_fast(text, false).map_err(|e| e.to_string());
    let encoding = match &pair {
        Some(pair) => tokenizer.encode_fast((text.as_ref(), pair.as_ref()), true),
        None => tokenizer.encode_fast(text.as_ref(), true),
    }
    .map_err(|e| e.to_string())?;
    if encoding.len() <= most {
        return Ok(encoding);
    }
    let added = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(pair.is_some()));
    if added >= most {
        return Err(format!("{added} special tokens leave no room in {most}"));
    }
    let second = pair.as_ref().map(|pair| plain(pair)).transpose()?.map(|mut second| {
        second.set_type_ids(vec![1; second.len()]);
        second
    });
    let within = TruncationParams { max_length: most - added, ..Default::default() };
    let (first, second) = truncate_encodings(plain(&text)?, second, &within).map_err(|e| e.to_string())?;
    let encoding = tokenizer.post_process(first, second, true).map_err(|e| e.to_string())?;
    if encoding.len() > most {
        return Err(format!("the post-processor makes {} tokens where {most} are wanted", encoding.len()));
    }
    Ok(encoding)
}

fn decode(tokenizer: &Tokenizer, ids: &[i32], skip_special: bool) -> Outcome<String> {
    let ids: Vec<u32> = ids
        .iter()
        .map(|&id| u32::try_from(id).map_err(|_| format!("token id {id} is negative")))
        .collect::<Outcome<_>>()?;
    tokenizer.decode(&ids, skip_special).map_err(|e| e.to_string())
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_new(
    json: *const u8,
    len: usize,
    ret: *mut *mut Tokenizer,
    error: *mut c_char,
    error_bytes: usize,
) -> c_int {
    silence_panics();
    let work = || {
        *ret = Box::into_raw(Box::new(parse(borrow(json, len))?));
        Ok(())
    };
    guard(work, error, error_bytes)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_vocab(tokenizer: *const Tokenizer) -> usize {
    (*tokenizer).get_vocab_size(true)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_id(tokenizer: *const Tokenizer, token: *const u8, len: usize) -> i64 {
    std::str::from_utf8(borrow(token, len))
        .ok()
        .and_then(|token| (*tokenizer).token_to_id(token))
        .map_or(-1, i64::from)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_is_byte(tokenizer: *const Tokenizer, id: i32) -> c_int {
    let token = u32::try_from(id).ok().and_then(|id| (*tokenizer).id_to_token(id));
    let byte = token.as_deref().and_then(|token| token.strip_prefix("<0x")?.strip_suffix('>'));
    c_int::from(byte.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok()))
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_encode(
    tokenizer: *const Tokenizer,
    text: *const u8,
    len: usize,
    special: c_int,
    ret: *mut *mut i32,
    ret_count: *mut usize,
    error: *mut c_char,
    error_bytes: usize,
) -> c_int {
    let work = || {
        let ids = encode(&*tokenizer, borrow(text, len), special != 0)?;
        *ret = hand_out(&ids)?;
        *ret_count = ids.len();
        Ok(())
    };
    guard(work, error, error_bytes)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_encode_within(
    tokenizer: *const Tokenizer,
    text: *const u8,
    len: usize,
    pair: *const u8,
    pair_len: usize,
    most: usize,
    ret: *mut *mut i32,
    ret_types: *mut *mut i32,
    ret_count: *mut usize,
    error: *mut c_char,
    error_bytes: usize,
) -> c_int {
    let work = || {
        let second = (!pair.is_null()).then(|| borrow(pair, pair_len));
        let encoding = encode_within(&*tokenizer, borrow(text, len), second, most)?;
        let (ids, types) = (whole(encoding.get_ids())?, whole(encoding.get_type_ids())?);
        let ids_memory = hand_out(&ids)?;
        *ret_types = hand_out(&types).inspect_err(|_| free(ids_memory.cast()))?;
        *ret = ids_memory;
        *ret_count = ids.len();
        Ok(())
    };
    guard(work, error, error_bytes)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_decode(
    tokenizer: *const Tokenizer,
    ids: *const i32,
    count: usize,
    skip_special: c_int,
    ret: *mut *mut c_char,
    ret_len: *mut usize,
    error: *mut c_char,
    error_bytes: usize,
) -> c_int {
    let work = || {
        let text = decode(&*tokenizer, borrow(ids, count), skip_special != 0)?;
        *ret = hand_out(text.as_bytes())?.cast::<c_char>();
        *ret_len = text.len();
        Ok(())
    };
    guard(work, error, error_bytes)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_chat_new(
    source: *const u8,
    len: usize,
    ret: *mut *mut chat::Template,
    error: *mut c_char,
    error_bytes: usize,
) -> c_int {
    silence_panics();
    let work = || {
        let source = std::str::from_utf8(borrow(source, len)).map_err(|e| format!("not UTF-8: {e}"))?;
        *ret = Box::into_raw(Box::new(chat::Template::new(source)?));
        Ok(())
    };
    guard(work, error, error_bytes)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_chat_free(template: *mut chat::Template) {
    if !template.is_null() {
        drop(Box::from_raw(template));
    }
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_chat_render(
    template: *const chat::Template,
    variables: *const u8,
    len: usize,
    now_s: i64,
    ret: *mut *mut c_char,
    ret_len: *mut usize,
    error: *mut c_char,
    error_bytes: usize,
) -> c_int {
    let work = || {
        let text = (*template).render(borrow(variables, len), now_s)?;
        *ret = hand_out(text.as_bytes())?.cast::<c_char>();
        *ret_len = text.len();
        Ok(())
    };
    guard(work, error, error_bytes)
}

/// # Safety
/// As assay_hf.h says.
#[no_mangle]
pub unsafe extern "C" fn assay_hf_from_sentencepiece(
    model: *const u8,
    len: usize,
    config: *const u8,
    config_len: usize,
    ret: *mut *mut c_char,
    ret_len: *mut usize,
    error: *mut c_char,
    error_bytes: usize,
) -> c_int {
    silence_panics();
    let work = || {
        let json = sentencepiece::to_json(borrow(model, len), borrow(config, config_len))?;
        *ret = hand_out(json.as_bytes())?.cast::<c_char>();
        *ret_len = json.len();
        Ok(())
    };
    guard(work, error, error_bytes)
}
