//! What both clients share: the rounds while a server dies and comes back, and what went wrong in them.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

/// What a life or a round ended with.
pub enum Trouble {
    /// An answer that is not what has been acknowledged.
    Wrong(String),
    /// The client's own word.
    Error(String),
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        Trouble::Error(error.to_string())
    }
}

impl Display for Trouble {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Wrong(what) | Trouble::Error(what) => out.write_str(what),
        }
    }
}

pub fn same<T: PartialEq + Debug>(got: T, wanted: T, what: &str) -> Result<(), Trouble> {
    if got == wanted {
        return Ok(());
    }
    Err(Trouble::Wrong(format!("{what}: {got:?} instead of {wanted:?}")))
}

/// A life, rounds for so many seconds, and a life again. The last line of the output is for tests/clients/mod.rs.
pub fn run<C>(
    cache: &mut C,
    seconds: &str,
    life: impl Fn(&mut C, &str) -> Result<(), Trouble>,
    round: impl Fn(&mut C, u64) -> Result<(), Trouble>,
) {
    let seconds: f64 = seconds.parse().expect("a number of seconds");
    let whole = |cache: &mut C, name| life(cache, name).unwrap_or_else(|why| panic!("{name} life: {why}"));
    whole(cache, "first");
    println!("looping");
    let (mut rounds, mut errors, mut wrong, mut first) = (0, 0, 0, String::new());
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        rounds += 1;
        if let Err(why) = round(cache, rounds) {
            if first.is_empty() {
                first = format!("round {rounds}: {why}");
            }
            match why {
                Trouble::Wrong(_) => wrong += 1,
                Trouble::Error(_) => errors += 1,
            }
        }
    }
    whole(cache, "last");
    println!("rounds={rounds} errors={errors} wrong={wrong} first={first}");
}
