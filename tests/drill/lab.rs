//! Two nodes and their clients, from the start to the reckoning.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::book::{Book, Finding};
use super::client::{value_of, Client, Line, Window};
use super::network::{inside, Network};
use super::node::{install_scripts, Node, Setup, VIP};
use super::process::{adopt_orphans, hurry};
use super::witness::{both, Witness};
use super::{wait_for, Outcome};

/// Clients; the first one's time is measured, all are checked.
const CLIENTS: u64 = 3;

/// One of the two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The master by its priority; its memcached is the primary.
    A,
    /// The standby.
    B,
}

/// What one run of one drill has shown.
#[derive(Clone)]
pub struct Report {
    /// The measured client's window.
    pub window: Window,
    /// How long both nodes had the address.
    pub both: Duration,
    /// Keys that were acknowledged and missed at least once.
    pub lost: Vec<String>,
    /// Reads of a value that was older than the one acknowledged last, and of bytes that nobody wrote.
    pub stale: usize,
    /// Who had the address in the end.
    pub holders: Vec<Side>,
    /// Keys that were read back in the end.
    pub keys: usize,
    /// What was lost or stale, and after how many milliseconds.
    pub findings: Vec<(i64, Finding)>,
    /// In words: the same, and what failed.
    pub notes: Vec<String>,
}

type Spans = Vec<(Instant, Instant)>;

/// The lab.
pub struct Lab {
    // Declared first, dropped first: nobody asks nodes that are being taken down.
    clients: Vec<Client>,
    a: Node,
    b: Node,
    witnesses: [Option<Witness>; 2],
    held: [Spans; 2],
    network: Network,
}

/// Runs `drill` in a lab of its own, on a thread of its own, and reckons up.
pub fn run(
    setup: &Setup,
    keep: Option<&Path>,
    drill: impl FnOnce(&mut Lab) -> Outcome<()> + Send + 'static,
) -> Outcome<Report> {
    static LABS: AtomicU32 = AtomicU32::new(0);
    let mut setup = setup.clone();
    let number = LABS.fetch_add(1, Ordering::Relaxed) % 1000;
    adopt_orphans()?;
    // At most 15 characters with what the node adds.
    setup.tag = format!("{}.{number}", std::process::id());
    let keep = keep.map(Path::to_owned);
    let thread = std::thread::spawn(move || {
        hurry();
        let mut lab = Lab::start(&setup)?;
        let done = drill(&mut lab).and_then(|()| lab.reckon());
        let is_clean = matches!(&done, Ok(report) if report.lost.is_empty() && report.stale == 0);
        match (keep, is_clean) {
            (Some(keep), false) => {
                let kept = lab.keep_logs(&keep);
                kept.and(done)
                    .map_err(|why| format!("{why}\nlogs: {}", keep.display()))
            }
            _ => done,
        }
    });
    thread.join().map_err(|_| "the lab panicked".to_string())?
}

impl Lab {
    fn start(setup: &Setup) -> Outcome<Lab> {
        let network = Network::new()?;
        install_scripts(&setup.magent)?;
        let mut lab = Lab {
            clients: Vec::new(),
            a: Node::new("a", setup)?,
            b: Node::new("b", setup)?,
            witnesses: [None, None],
            held: [Vec::new(), Vec::new()],
            network,
        };
        for side in [Side::A, Side::B] {
            lab.witness(side)?;
        }
        // Both memcacheds before either proxy: neither finds the other missing.
        lab.a.start_memcached()?;
        lab.b.start_memcached()?;
        for side in [Side::A, Side::B] {
            let address = ["192.0.2.11:11211", "192.0.2.12:11211"][side as usize];
            let answers = inside("c", move || {
                wait_for("memcached answers", || {
                    std::net::TcpStream::connect(address).is_ok()
                })
            })?;
            answers.join().map_err(|_| "panic")??;
        }
        lab.a.start_services()?;
        lab.wait_held(Side::A)?;
        lab.b.start_services()?;
        wait_for("B's proxy runs", || setup.guide || lab.b.has_proxy())?;
        for number in 0..CLIENTS {
            let client = Client::start(&format!("c{number}."), number, VIP)?;
            lab.clients.push(client);
        }
        wait_for("the first keys are written", || {
            lab.clients.iter().all(Client::is_ready)
        })?;
        // keepalived has run its checks and sent its second round of gratuitous ARPs.
        std::thread::sleep(Duration::from_millis(1500) + setup.later);
        lab.mark();
        Ok(lab)
    }

    /// A node.
    pub fn node(&mut self, side: Side) -> &mut Node {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// The cables.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// From here on is measured; what was before is forgotten, but for the checks.
    pub fn mark(&self) {
        for client in &self.clients {
            client.open_window();
        }
    }

    /// Lets the clients work on.
    pub fn work(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Waits until that node has the address, and the other has not.
    pub fn wait_held(&self, side: Side) -> Outcome<()> {
        let other = if side == Side::A { Side::B } else { Side::A };
        wait_for(&format!("{side:?} alone has the address"), || {
            self.holds(side) && !self.holds(other)
        })
    }

    /// Waits until that node has it, whatever the other thinks.
    pub fn wait_held_by(&self, side: Side) -> Outcome<()> {
        wait_for(&format!("{side:?} has the address"), || self.holds(side))
    }

    /// Whether the node has the address.
    pub fn holds(&self, side: Side) -> bool {
        let witness = self.witnesses[side as usize].as_ref();
        witness.is_some_and(Witness::is_here)
    }

    /// Waits until the measured client works again: 20 successes, the last one now.
    pub fn wait_working(&self) -> Outcome<()> {
        let client = self.clients.first().ok_or("there is no client")?;
        let before = client.window().succeeded;
        wait_for("the client works", || {
            client.window().succeeded >= before + 20
                && client.last_success().elapsed() < Duration::from_millis(50)
        })
    }

    /// Waits until the proxy on that node counts both servers as warm.
    pub fn wait_whole(&mut self, side: Side) -> Outcome<()> {
        let node = self.node(side);
        wait_for("both copies are up and warm", || {
            let Some(stats) = node.ask_proxy("stats replication\r\n") else {
                return false;
            };
            stats.matches(":state up\r\n").count() == 2
        })
    }

    /// Power loss: the link goes, then every process at once, and all its sockets.
    pub fn power_off(&mut self, side: Side) -> Outcome<()> {
        let name = self.node(side).name;
        self.network.unplug(name)?;
        self.node(side).kill_everything();
        if let Some(witness) = self.witnesses[side as usize].take() {
            self.held[side as usize].extend(witness.finish());
        }
        self.network.remove(name)
    }

    /// The node starts again, with an empty memcached.
    pub fn power_on(&mut self, side: Side) -> Outcome<()> {
        let name = self.node(side).name;
        self.network.attach(name)?;
        self.witness(side)?;
        self.node(side).boot()
    }

    fn witness(&mut self, side: Side) -> Outcome<()> {
        let name = self.node(side).name;
        self.witnesses[side as usize] = Some(Witness::start(name, VIP.0)?);
        Ok(())
    }

    /// Stops the clients, reads everything back through the address, and adds up.
    fn reckon(&mut self) -> Outcome<Report> {
        let first = self.clients.first().ok_or("there is no client")?;
        let window = first.window();
        let holders = [Side::A, Side::B]
            .into_iter()
            .filter(|side| self.holds(*side));
        let holders = holders.collect();
        let mut books = Vec::new();
        for client in self.clients.drain(..) {
            books.push(client.finish()?);
        }
        for (witness, held) in self.witnesses.iter_mut().zip(&mut self.held) {
            held.extend(witness.take().into_iter().flat_map(Witness::finish));
        }
        let books = inside("c", move || read_back(books))?;
        let books = books.join().map_err(|_| "reading back panicked")??;
        let [a, b] = &self.held;
        let mut report = Report {
            both: both(a, b, window.since),
            lost: Vec::new(),
            stale: 0,
            holders,
            keys: books.iter().map(Book::acknowledged).sum(),
            findings: Vec::new(),
            notes: Vec::new(),
            window,
        };
        for book in books {
            for (when, finding) in book.findings {
                let ms = ms_between(report.window.since, when);
                report.notes.push(format!("at {ms} ms: {finding:?}"));
                match &finding {
                    Finding::Lost(key) if !report.lost.contains(key) => {
                        report.lost.push(key.clone());
                    }
                    Finding::Lost(_) => {}
                    Finding::Stale(..) | Finding::Foreign(..) => report.stale += 1,
                }
                report.findings.push((ms, finding));
            }
        }
        let since = report.window.since;
        let failures = report.window.notes.iter();
        let failures =
            failures.map(|(when, why)| format!("at {} ms: {why}", ms_between(since, *when)));
        report.notes.extend(failures);
        let outage = report.window.outage.as_millis();
        let at = ms_between(since, report.window.outage_at);
        report
            .notes
            .push(format!("at {at} ms: outage of {outage} ms"));
        Ok(report)
    }

    fn keep_logs(&self, keep: &Path) -> Outcome<()> {
        for node in [&self.a, &self.b] {
            let to = keep.join(node.name);
            fs::create_dir_all(&to).map_err(|e| format!("{}: {e}", to.display()))?;
            let files = fs::read_dir(node.dir()).map_err(|e| e.to_string())?;
            for file in files.flatten() {
                if file.file_type().is_ok_and(|kind| kind.is_file()) {
                    let name = file.file_name();
                    fs::copy(file.path(), to.join(name)).map_err(|e| e.to_string())?;
                }
            }
        }
        Ok(())
    }
}

/// Milliseconds from `since` to `when`; negative when it was before.
fn ms_between(since: Instant, when: Instant) -> i64 {
    let after = when.saturating_duration_since(since).as_millis() as i64;
    after - since.saturating_duration_since(when).as_millis() as i64
}

fn read_back(mut books: Vec<Book>) -> Outcome<Vec<Book>> {
    let mut line = Line::new(VIP);
    for book in &mut books {
        for key in book.keys() {
            let mut last = String::new();
            wait_for("a key is read back", || {
                let (reply, _) = line.ask(&format!("get {key}\r\n"));
                let Ok(reply) = reply else { return false };
                last = reply;
                let Ok(value) = value_of(&last) else {
                    return false;
                };
                book.read(&key, value, Instant::now());
                true
            })?;
        }
    }
    Ok(books)
}
