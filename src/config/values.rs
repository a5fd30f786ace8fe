//! How the values of options are checked and printed.

use std::path::PathBuf;

use super::addr::number;
use super::options::SERVERS_MAX;
use super::{Config, Copies, PROXY_ID_MAX};

/// The default of an option that has none.
pub(super) fn none(_: &Config) -> String {
    String::new()
}

/// A number from `least` to `most`.
pub(super) fn within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    number(text)
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("not a number from {least} to {most}"))
}

/// A number of bytes with an optional k, m or g (powers of 1024, as memcached's `-I`).
pub(super) fn bytes(text: &str, least: u64, most: u64) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| (least..=most).contains(n))
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| {
            let (least, most) = (bytes_text(least as usize), bytes_text(most as usize));
            format!("not a size from {least} to {most} (bytes, or with k, m, g)")
        })
}

/// A number of bytes as [`bytes`] takes it, as short as it goes.
pub(super) fn bytes_text(bytes: usize) -> String {
    for (shift, suffix) in [(30, 'g'), (20, 'm'), (10, 'k')] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Takes the name or number of a user or group.
pub(super) fn put_name(slot: &mut Option<String>, value: &str, wrong: &str) -> Result<(), String> {
    if value.is_empty() || value.contains([':', '\n', '\0']) {
        return Err(wrong.into());
    }
    *slot = Some(value.to_owned());
    Ok(())
}

/// Takes a path.
pub(super) fn put_path(slot: &mut Option<PathBuf>, value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains('\0') {
        return Err("not a path".into());
    }
    *slot = Some(PathBuf::from(value));
    Ok(())
}

/// Refuses more servers than the core can name.
pub(super) fn check_servers(config: &Config) -> Result<(), String> {
    if config.servers.len() + config.backups.len() > SERVERS_MAX {
        return Err(format!(
            "too many servers (at most {SERVERS_MAX} with the backups)"
        ));
    }
    Ok(())
}

/// A number of copies, or `all`.
pub(super) fn copies(text: &str) -> Result<Copies, String> {
    if text == "all" {
        return Ok(Copies::All);
    }
    match number(text).filter(|n| (1..=SERVERS_MAX as u64).contains(n)) {
        Some(n) => Ok(Copies::AtMost(n as usize)),
        None => Err(format!(
            "not a number of copies (1 to {SERVERS_MAX}, or all)"
        )),
    }
}

/// One word of a few; the error lists them.
pub(super) fn choice<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(format!("not one of {}", words.join(", ")))
}

/// The word of a choice.
pub(super) fn word<T: PartialEq>(value: T, words: &[(&str, T)]) -> String {
    let found = words.iter().find(|(_, other)| *other == value);
    found.map_or_else(String::new, |(word, _)| (*word).to_owned())
}

/// Takes a proxy's name. It stands between blanks in the stamps that all proxies of a pool read.
pub(super) fn put_proxy_id(slot: &mut String, value: &str) -> Result<(), String> {
    let fits = (1..=PROXY_ID_MAX).contains(&value.len());
    if !fits || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "not a name (1 to {PROXY_ID_MAX} printable ASCII characters, no blanks)"
        ));
    }
    *slot = value.to_owned();
    Ok(())
}
