//! What twemproxy's users have in their fingers: its long names, `-v N`, and what to write instead of what is not taken.

/// Long names of twemproxy's, and what they are here.
const NAMES: [(&str, &str); 5] = [
    ("--conf-file", "--config"),
    ("--test-conf", "--test-config"),
    ("--daemonize", "--daemon"),
    ("--output", "--log-file"),
    ("--pid-file", "--pidfile"),
];

/// Most `-v` that make a difference.
const VERBOSE_MAX: usize = 3;

/// The same arguments in magent's words. Nothing that magent takes itself is changed.
pub(super) fn translate(args: Vec<String>) -> Vec<String> {
    let mut words = Vec::with_capacity(args.len());
    let mut rest = args.into_iter().peekable();
    let mut options = true;
    while let Some(arg) = rest.next() {
        options &= arg != "--";
        if !options {
            words.push(arg);
            continue;
        }
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        if name == "-v" || name == "--verbose" {
            let level = match value {
                Some(value) if name == "--verbose" => level(value),
                None => rest.peek().and_then(|next| level(next)),
                Some(_) => None,
            };
            if let Some(level) = level {
                if value.is_none() {
                    rest.next();
                }
                words.extend((0..level).map(|_| "-v".to_owned()));
                continue;
            }
        }
        let ours = NAMES.iter().find(|(theirs, _)| *theirs == name);
        words.push(match (ours, value) {
            (Some((_, ours)), Some(value)) => format!("{ours}={value}"),
            (Some((_, ours)), None) => (*ours).to_owned(),
            (None, _) => arg,
        });
    }
    words
}

/// How many `-v` say about as much as twemproxy's level: up to its 5 state changes, with 6 and 7 requests, above all.
fn level(text: &str) -> Option<usize> {
    let level: usize = super::addr::number(text)?.try_into().ok()?;
    Some(match level {
        0..=5 => 0,
        6 => 1,
        7 => 2,
        _ => VERBOSE_MAX,
    })
}

/// What to write instead of an option that twemproxy has and magent has not, or not in that sense.
pub(super) fn hint(option: &str) -> Option<&'static str> {
    Some(match option {
        "-m" | "--mbuf-size" => "not needed, buffers are as large as what is in them (see --memory-limit); leave it out",
        "-a" | "--stats-addr" | "--stats-port" | "--stats-interval" => {
            "statistics are at --admin ADDR:PORT, or asked for with 'stats' where clients connect; leave it out"
        }
        "-s" => "servers are in the file; instead of twemproxy's port for statistics there is --admin ADDR:PORT",
        "-p" => "where to listen is in the file; for a pid file there is --pidfile FILE",
        "--describe-stats" => "see docs/stats.md",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twemproxy_words_become_ours_and_ours_stay() {
        for (line, expect) in [
            ("-d -c f -o log -v 6", "-d -c f -o log -v"),
            (
                "--conf-file=f --test-conf --daemonize",
                "--config=f --test-config --daemon",
            ),
            ("--output f --pid-file=p", "--log-file f --pidfile=p"),
            ("-v 5 --verbose=11 -v 7", "-v -v -v -v -v"),
            ("-v -D -vv --verbose", "-v -D -vv --verbose"),
            ("-v x -- -v 5", "-v x -- -v 5"),
            ("--verbose=x", "--verbose=x"),
        ] {
            let args = line.split(' ').map(str::to_owned).collect();
            assert_eq!(translate(args).join(" "), expect, "{line}");
        }
    }
}
