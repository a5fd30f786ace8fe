//! What is made of the answers that come, and do not come, over time. Pure: the clock is the caller's.

use super::answer::{Finding, Verdict};
use crate::time::{Span, Time};

/// The rule: healthy as soon as a healthy answer comes; anything else only when none has come for the time limit, so
/// that a proxy which is restarted at once, or a server that flaps, moves nothing.
pub struct Judge {
    limit: Span,
    /// When a healthy answer last came; at first when the watching began.
    healthy: Time,
    /// The last answer that was not healthy, and when it came.
    degraded: Option<(Time, Finding)>,
    /// Why there was no answer lately.
    trouble: Option<String>,
    /// What was last said.
    said: Option<Verdict>,
}

impl Judge {
    /// Nothing is known, and for `limit` nothing is held against the proxy.
    pub fn new(limit: Span, now: Time) -> Judge {
        Judge {
            limit,
            healthy: now,
            degraded: None,
            trouble: None,
            said: None,
        }
    }

    /// An answer came, or what stands for none.
    pub fn hear(&mut self, finding: Finding, now: Time) -> Option<Finding> {
        match finding.verdict {
            Verdict::Healthy => {
                self.healthy = now;
                self.degraded = None;
                self.trouble = None;
                return self.say(finding);
            }
            Verdict::Degraded => {
                self.degraded = Some((now, finding));
                self.trouble = None;
            }
            Verdict::Silent => self.trouble = Some(finding.why),
        }
        self.tick(now)
    }

    /// A question is on its way: what went wrong before is over.
    pub fn asked(&mut self) {
        self.trouble = None;
    }

    /// The watcher itself did not run for a while: that is not the proxy's fault, so its time begins anew.
    pub fn begin_anew(&mut self, now: Time) {
        self.healthy = now;
        if let Some((heard, _)) = &mut self.degraded {
            *heard = now;
        }
    }

    /// Time has passed. Something to say, when it is not what was said last.
    pub fn tick(&mut self, now: Time) -> Option<Finding> {
        if now < self.healthy + self.limit {
            return None;
        }
        if let Some((heard, finding)) = &self.degraded {
            if now < *heard + self.limit {
                let finding = finding.clone();
                return self.say(finding);
            }
        }
        let why = self.trouble.clone();
        let limit = self.limit.0 / 1000;
        self.say(Finding::silent(
            why.unwrap_or_else(|| format!("no answer within {limit} ms")),
        ))
    }

    /// When `tick` can have something to say next.
    pub fn next_tick(&self) -> Option<Time> {
        let heard = self.degraded.as_ref().map(|(heard, _)| *heard + self.limit);
        match self.said {
            Some(Verdict::Silent) => None,
            Some(Verdict::Degraded) => heard,
            _ => Some(self.healthy + self.limit),
        }
    }

    fn say(&mut self, finding: Finding) -> Option<Finding> {
        if self.said == Some(finding.verdict) {
            return None;
        }
        self.said = Some(finding.verdict);
        Some(finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Span = Span::from_millis(300);

    fn at(ms: u64) -> Time {
        Time(ms * 1000)
    }

    fn finding(verdict: Verdict) -> Finding {
        Finding {
            verdict,
            why: "x".into(),
        }
    }

    fn code(said: Option<Finding>) -> Option<u8> {
        said.map(|finding| finding.verdict.code())
    }

    #[test]
    fn healthy_at_once_silent_after_the_limit() {
        let mut judge = Judge::new(LIMIT, at(0));
        assert_eq!(judge.next_tick(), Some(at(300)));
        assert_eq!(code(judge.tick(at(299))), None, "nothing is known yet");
        assert_eq!(code(judge.hear(finding(Verdict::Healthy), at(10))), Some(0));
        assert_eq!(code(judge.hear(finding(Verdict::Healthy), at(60))), None);
        assert_eq!(judge.next_tick(), Some(at(360)));
        assert_eq!(code(judge.tick(at(359))), None);
        let said = judge.tick(at(360)).map(|finding| finding.to_string());
        assert_eq!(
            said.as_deref(),
            Some("not answering: no answer within 300 ms")
        );
        assert_eq!(code(judge.tick(at(2000))), None, "said once");
        assert_eq!(judge.next_tick(), None);
        assert_eq!(
            code(judge.hear(finding(Verdict::Healthy), at(2001))),
            Some(0)
        );
    }

    #[test]
    fn a_quick_restart_and_a_flapping_server_move_nothing() {
        let mut judge = Judge::new(LIMIT, at(0));
        judge.hear(finding(Verdict::Healthy), at(0));
        assert_eq!(code(judge.hear(finding(Verdict::Silent), at(50))), None);
        assert_eq!(code(judge.hear(finding(Verdict::Degraded), at(250))), None);
        assert_eq!(code(judge.hear(finding(Verdict::Healthy), at(299))), None);
        assert_eq!(code(judge.tick(at(598))), None);
        let refused = Finding::silent("Connection refused");
        let said = judge.hear(refused, at(599)).map(|said| said.to_string());
        assert_eq!(said.as_deref(), Some("not answering: Connection refused"));
    }

    #[test]
    fn degraded_is_said_while_it_answers_and_silence_after_it() {
        let mut judge = Judge::new(LIMIT, at(0));
        judge.hear(finding(Verdict::Healthy), at(0));
        for ms in (50..300).step_by(50) {
            assert_eq!(code(judge.hear(finding(Verdict::Degraded), at(ms))), None);
        }
        assert_eq!(
            code(judge.hear(finding(Verdict::Degraded), at(300))),
            Some(1)
        );
        assert_eq!(judge.next_tick(), Some(at(600)));
        assert_eq!(code(judge.tick(at(599))), None);
        assert_eq!(code(judge.tick(at(600))), Some(2));
        assert_eq!(
            code(judge.hear(finding(Verdict::Degraded), at(650))),
            Some(1)
        );
        assert_eq!(
            code(judge.hear(finding(Verdict::Healthy), at(700))),
            Some(0)
        );
    }

    #[test]
    fn a_watcher_that_was_stopped_itself_begins_anew() {
        let mut judge = Judge::new(LIMIT, at(0));
        judge.hear(finding(Verdict::Healthy), at(0));
        judge.begin_anew(at(5000));
        assert_eq!(code(judge.tick(at(5299))), None);
        assert_eq!(code(judge.tick(at(5300))), Some(2));
    }
}
