//! Flow and room: `stats` and `stats settings`, for which the servers are asked as well.
//!
//! ```text
//!   client A  stats ----> round 1: stats to the primaries ... all have answered ---> A
//!   client B       stats, while round 1 is under way: waits for round 2 ----------------> B
//!   client C                                              stats, nothing was sent since -> C, at once
//! ```
//!
//! One round serves all who asked before it began, so whoever asks after a write sees it. Rounds begin only when somebody asks,
//! and no more often than [`ROUND_EVERY`]. What is known serves as well, up to [`KNOWN_FOR`], as long as this proxy
//! has sent nothing since. A round ends without those who are late.

use super::general::fill_general;
use super::ids::ClientId;
use super::inquiry::{Asker, Found};
use super::sums::{of_counters, of_settings, Rule, Sums};
use super::Proxy;
use crate::proto::replies;
use crate::time::{Span, Time};

/// Rounds begin no more often: who asks without end costs the servers no more than this.
const ROUND_EVERY: Span = Span::from_millis(20);

/// A round takes no longer, and no longer than half the time limit: whoever waits for one and for the next is answered in time.
const ROUND_MAX: Span = Span::from_millis(500);

/// What servers said is not shown any more after this.
const KNOWN_FOR: Span = Span::from_millis(1000);

/// The reply is some 5 KB: in a client's window one counts like so many keys.
const WEIGHT: usize = 16;

/// Which statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// `stats`
    General,
    /// `stats settings`
    Settings,
}

impl Page {
    pub const ALL: [Page; 2] = [Page::General, Page::Settings];

    fn line(self) -> &'static [u8] {
        match self {
            Page::General => b"stats\r\n",
            Page::Settings => b"stats settings\r\n",
        }
    }

    /// How the servers' numbers are put together.
    pub fn rule(self) -> fn(&[u8]) -> Rule {
        match self {
            Page::General => of_counters,
            Page::Settings => of_settings,
        }
    }
}

/// A client who waits.
#[derive(Debug)]
struct Waiting {
    client: ClientId,
    seq: u32,
}

/// What is known of the servers for one page, and who waits for it.
#[derive(Debug)]
pub struct Census {
    /// For the next round.
    waiting: Vec<Waiting>,
    /// For the one that is under way.
    asking: Option<Vec<Waiting>>,
    /// That round's inquiry.
    inquiry: Option<u32>,
    /// When the last round began.
    began: Option<Time>,
    /// How many requests had been sent by then; `None`: it may have missed some.
    sent: Option<u64>,
    /// What came of it.
    pub known: Sums,
}

impl Census {
    pub fn new(page: Page) -> Census {
        Census {
            waiting: Vec::new(),
            asking: None,
            inquiry: None,
            began: None,
            sent: None,
            known: nothing_known(page),
        }
    }
}

/// What is said before a server has said anything.
fn nothing_known(page: Page) -> Sums {
    let mut sums = Sums::new(page.rule());
    if page == Page::General {
        fill_general(&mut sums);
    }
    sums
}

impl Proxy {
    /// A client asks for `page`.
    pub(super) fn take_census(&mut self, id: ClientId, page: Page) {
        let (now, sent) = (self.now, self.requests_sent());
        let Some(client) = self.client_mut(id) else {
            return;
        };
        let seq = client.open_slot(WEIGHT);
        let census = &mut self.census[page as usize];
        let is_fresh = census.asking.is_none()
            && census.sent == Some(sent)
            && census.began.is_some_and(|at| now.since(at) < KNOWN_FOR);
        let waiting = Waiting { client: id, seq };
        if is_fresh {
            self.answer_census(page, vec![waiting]);
        } else {
            census.waiting.push(waiting);
            if self.round_due(page).is_some_and(|at| at <= now) {
                self.advance_census(page);
            }
        }
    }

    /// Begins and ends the rounds that are due. Called with each turn.
    pub(super) fn advance_censuses(&mut self) {
        for page in Page::ALL {
            if self.round_due(page).is_some_and(|at| at <= self.now) {
                self.advance_census(page);
            }
        }
    }

    fn advance_census(&mut self, page: Page) {
        match self.census[page as usize].inquiry.take() {
            Some(inquiry) => self.end_inquiry(inquiry),
            None => self.begin_round(page),
        }
    }

    /// When [`Proxy::advance_censuses`] has something to do.
    pub(super) fn census_due(&self) -> Option<Time> {
        let due = Page::ALL.map(|page| self.round_due(page));
        due.into_iter().flatten().min()
    }

    /// When a round ends or begins.
    fn round_due(&self, page: Page) -> Option<Time> {
        let census = &self.census[page as usize];
        let began = census.began.unwrap_or(Time(0));
        if census.asking.is_some() {
            let longest = Span(ROUND_MAX.0.min(self.settings.timeout.0 / 2));
            Some(began.max(self.resumed) + longest)
        } else if !census.waiting.is_empty() {
            Some(began + ROUND_EVERY)
        } else {
            None
        }
    }

    fn begin_round(&mut self, page: Page) {
        let now = self.now;
        let census = &mut self.census[page as usize];
        census.asking = Some(std::mem::take(&mut census.waiting));
        census.began = Some(now);
        // Whom copies are at is not asked, or they would be counted twice; but better those than nobody.
        let primary = |server: &super::server::Server| server.is_primary && server.is_connected();
        let no_primary = !self.servers.iter().any(primary);
        let asked = (0..self.servers.len()).filter(|&index| {
            let server = &self.servers[index];
            primary(server) || (no_primary && server.is_connected())
        });
        let asked: Vec<usize> = asked.collect();
        // What is under way on other connections may come behind the answers.
        let mut others = self
            .servers
            .iter()
            .flat_map(|server| &server.links[1..server.conns]);
        let settled = others.all(|link| link.fifo.is_empty());
        let sums = Sums::new(page.rule());
        let inquiry = self.ask_servers(Asker::Census(page), page.line(), Found::Sums(sums), &asked);
        let sent = settled.then(|| self.requests_sent());
        let census = &mut self.census[page as usize];
        census.sent = sent;
        // With nobody to ask it is over.
        census.inquiry = census.asking.is_some().then_some(inquiry);
    }

    /// A round is over. `answered`: by one server at least.
    pub(super) fn census_taken(&mut self, page: Page, mut sums: Sums, answered: bool) {
        let census = &mut self.census[page as usize];
        match page {
            // How much they may hold is true even while they are away, and dashboards divide by it.
            Page::General => {
                let limit = census.known.number("limit_maxbytes").unwrap_or(0);
                sums.set_if_missing("limit_maxbytes", limit);
                fill_general(&mut sums);
                census.known = sums;
            }
            Page::Settings if answered => census.known = sums,
            Page::Settings => {}
        }
        census.inquiry = None;
        if let Some(asking) = census.asking.take() {
            self.answer_census(page, asking);
        }
    }

    /// Answers with what is known now.
    fn answer_census(&mut self, page: Page, waiting: Vec<Waiting>) {
        let mut reply = self.memory.buffer();
        match page {
            Page::General => self.stats_general(&mut reply),
            Page::Settings => self.stats_settings(&mut reply),
        }
        reply.extend_from_slice(replies::END);
        for one in waiting {
            self.finish_slot(one.client, one.seq, WEIGHT, &reply);
        }
        self.memory.recycle(reply);
    }

    /// Requests sent to all servers.
    fn requests_sent(&self) -> u64 {
        self.servers.iter().map(|server| server.requests).sum()
    }
}
