//! Replies made comparable: what two servers may rightly say differently is replaced, nothing else.
//!
//! - cas unique numbers: `cas#1`, `cas#2`, ... in order of appearance (`c0`, the answer of a failure, stays);
//! - remaining seconds to live: rounded up to ten, as a second may begin between two servers, or to a hundred, where they
//!   are looked at later; over thirty days left out, as such an expiry is a moment and not a span;
//! - seconds since the last access; the version number; the time fields of `me`.

/// What one conversation has shown so far.
#[derive(Default)]
pub struct Normal {
    seen: Vec<String>,
    /// The cas unique that came last, as the server wrote it.
    pub last_cas: String,
    late: bool,
}

impl Normal {
    /// For what is looked at tens of seconds after it was set.
    pub fn late() -> Normal {
        Normal {
            late: true,
            ..Normal::default()
        }
    }

    /// Rewrites a run of replies.
    pub fn replies(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = rest
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            let body = self.line(line, &mut out).min(after.len());
            out.extend_from_slice(&after[..body]);
            rest = &after[body..];
        }
        out
    }

    /// Rewrites one line; tells how many bytes of value follow it.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            out.extend_from_slice(line);
            return 0;
        };
        // A key may be any bytes: each stands for itself.
        let text: String = line.iter().map(|&byte| char::from(byte)).collect();
        let text = text.as_str();
        let words: Vec<&str> = text.split(' ').collect();
        let length = |n: usize| {
            let length = words.get(n).and_then(|word| word.parse::<usize>().ok());
            length.map_or(0, |length| length.saturating_add(2))
        };
        let (body, rewritten) = match words[0] {
            "VALUE" if words.len() == 5 => {
                let cas = self.cas(words[4]);
                (length(3), format!("{} {cas}", words[..4].join(" ")))
            }
            "VALUE" => (length(3), text.to_string()),
            "VERSION" => (0, "VERSION *".to_string()),
            "VA" => (length(1), self.flags(&words)),
            "HD" | "EN" | "NS" | "EX" | "NF" => (0, self.flags(&words)),
            "ME" => (0, self.debug(&words)),
            _ => (0, text.to_string()),
        };
        out.extend(rewritten.chars().map(|one| one as u8));
        out.extend_from_slice(b"\r\n");
        body
    }

    /// Meta flags: a letter and its value.
    fn flags(&mut self, words: &[&str]) -> String {
        let step = if self.late { 100 } else { 10 };
        let rewrite = |word: &&str| -> String {
            let (letter, value) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
            match (letter, value.parse::<u64>()) {
                ("c", Ok(1..)) => format!("c{}", self.cas(value)),
                ("t", Ok(2_592_001..)) => "t*".to_string(),
                ("t", Ok(seconds @ 2..)) => format!("t{}", seconds.div_ceil(step) * step),
                ("l", Ok(0..=5)) => "l*".to_string(),
                _ => word.to_string(),
            }
        };
        words.iter().map(rewrite).collect::<Vec<_>>().join(" ")
    }

    /// The `name=value` pairs of `me`.
    fn debug(&mut self, words: &[&str]) -> String {
        let rewrite = |word: &&str| -> String {
            match word.split_once('=') {
                Some(("cas", value)) => format!("cas={}", self.cas(value)),
                Some((name @ ("exp" | "la"), _)) => format!("{name}=*"),
                _ => word.to_string(),
            }
        };
        words.iter().map(rewrite).collect::<Vec<_>>().join(" ")
    }

    fn cas(&mut self, unique: &str) -> String {
        self.last_cas = unique.to_string();
        let known = self.seen.iter().position(|one| one == unique);
        let at = known.unwrap_or_else(|| {
            self.seen.push(unique.to_string());
            self.seen.len() - 1
        });
        format!("cas#{}", at + 1)
    }
}
