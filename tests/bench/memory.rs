//! `make bench-memory`: what connections and bursts cost in memory, by the process's resident size.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::corpus::Corpus;
use crate::ground::{connect, settled_rss, Ground};
use crate::load::{Load, SILENCE};
use crate::peers::{Kind, Peer, Place, Servers};
use crate::procs::Child;
use crate::rows::Shape;

const CONTENDERS: &[Kind] = &[Kind::Magent, Kind::Nutcracker, Kind::MemcachedProxy];
const SERVERS: usize = 4;
/// Connections that are open before others are counted: what a proxy needs once is there then.
const FIRST: usize = 100;
/// Descriptors that are kept for other things than clients.
const DESCRIPTORS_SPARE: usize = 600;
/// The receive buffer of clients that do not read: the kernel holds little for them.
const NARROW: usize = 4 * 1024;
/// Nothing happens for so long before memory is looked at: after a burst, and while clients do not read.
const REST: Duration = Duration::from_secs(10);

struct Row {
    title: String,
    unit: &'static str,
    goal: String,
    figures: Vec<String>,
}

/// All rows. False: something went wrong, and has been printed.
pub fn run(args: &[String]) -> Result<bool, String> {
    let more = [
        (
            "values",
            "values of 1 MB that pass in the last row (100000)",
            "N",
        ),
        ("only", "only rows with this in their title", "TEXT"),
    ];
    let ground = Ground::new(args, CONTENDERS, &more)?;
    let only = ground.text("only").unwrap_or_default();
    let values = ground.number("values", 100_000)?;
    let most = ground.descriptors.saturating_sub(DESCRIPTORS_SPARE);
    let mut rows = Vec::new();
    let mut add = |title: String, unit, goal: &str, measure: &dyn Fn(&Scene) -> Measured| {
        if !title.contains(&only) {
            return;
        }
        eprint!(".");
        let figures = ground.kinds.iter().map(|&kind| {
            let scene = Scene {
                ground: &ground,
                kind,
            };
            measure(&scene).unwrap_or_else(|why| format!("FAILED {why}"))
        });
        rows.push(Row {
            figures: figures.collect(),
            title,
            unit,
            goal: goal.to_string(),
        });
    };
    for conns in [10_000, 50_000] {
        if conns > most {
            println!(
                "only {} open files are allowed here: {most} connections instead of {conns}",
                ground.descriptors
            );
        }
        let conns = conns.min(most);
        let title = format!("{conns} idle connections after one get each");
        add(title, "bytes each", "270", &|scene| scene.idle(conns));
    }
    for (clients, asks, size) in [(20, 32, 10_000), (10, 1000, 10_000), (10, 32, 1_000_000)] {
        let title = format!("reads nothing, asked for {asks} values of {size} bytes");
        add(title, "kB each", "128", &|scene| {
            scene.reads_nothing(clients, asks, size)
        });
    }
    for (clients, sent, size) in [(1000, 5_000, 10_000), (100, 500_000, 1_000_000)] {
        let title = format!("{sent} bytes sent of a set of {size}");
        let goal = format!("{}", sent / 1000);
        add(title, "kB each", &goal, &|scene| {
            scene.half_a_set(clients, sent, size)
        });
    }
    add("after w2".to_string(), "MB, at start", "+10%", &|scene| {
        scene.burst(&pipelined(), 1_000_000)
    });
    let title = format!("after {values} values of 1 MB");
    add(title, "MB, at start", "+10%", &|scene| {
        scene.burst(&large(), values)
    });
    eprintln!();
    print(&ground, &rows);
    Ok(!rows
        .iter()
        .flat_map(|row| &row.figures)
        .any(|figure| figure.starts_with("FAILED")))
}

fn print(ground: &Ground, rows: &[Row]) {
    println!("\nResident memory. Clients that read nothing: after {0} s. After a burst: {0} s after the last of its connections was closed, and at start.\n", REST.as_secs());
    print!("{:52} {:>12} {:>6}", "", "", "goal");
    for kind in &ground.kinds {
        print!(" {:>15}", kind.name());
    }
    println!();
    for row in rows {
        print!("{:52} {:>12} {:>6}", row.title, row.unit, row.goal);
        for figure in &row.figures {
            print!(" {figure:>15}");
        }
        println!();
    }
}

fn pipelined() -> Shape {
    Shape {
        depth: 32,
        ..usual()
    }
}

fn large() -> Shape {
    Shape {
        conns: 16,
        gets_percent: 90,
        keys: 64,
        size: 1_000_000,
        ..usual()
    }
}

fn usual() -> Shape {
    Shape {
        conns: 50,
        depth: 1,
        gets_percent: 90,
        keys_per_get: 1,
        keys: 10_000,
        size: 100,
        rate: None,
        binary: false,
    }
}

type Measured = Result<String, String>;

struct Scene<'a> {
    ground: &'a Ground,
    kind: Kind,
}

/// A fresh proxy with its servers.
struct Fresh {
    peer: Peer,
    _servers: Servers,
}

impl Fresh {
    fn child(&self) -> Result<&Child, String> {
        self.peer.child.as_ref().ok_or("no proxy".to_string())
    }
}

impl Scene<'_> {
    fn start(&self, corpus: &Corpus) -> Result<Fresh, String> {
        let mut place: Place = self.ground.place();
        let servers = Servers::start(&mut place, SERVERS, corpus, false)?;
        let peer = Peer::start(self.kind, &mut place, &servers, SERVERS)?;
        // It has answered once: whatever is made at the first request is there.
        ask_once(&peer, 0, corpus)?;
        Ok(Fresh {
            peer,
            _servers: servers,
        })
    }

    fn idle(&self, conns: usize) -> Measured {
        let corpus = Corpus::new(1, 100);
        let fresh = self.start(&corpus)?;
        let mut open = Vec::with_capacity(conns + FIRST);
        for index in 0..FIRST {
            open.push(ask_once(&fresh.peer, index, &corpus)?);
        }
        let before = settled_rss(fresh.child()?)?;
        for index in FIRST..conns + FIRST {
            open.push(ask_once(&fresh.peer, index, &corpus)?);
        }
        let more = settled_rss(fresh.child()?)?.saturating_sub(before);
        Ok(format!("{:.0}", more as f64 / conns as f64))
    }

    fn reads_nothing(&self, clients: usize, asks: usize, size: usize) -> Measured {
        let corpus = Corpus::new(64, size);
        let fresh = self.start(&corpus)?;
        // What the first value needed is given back by then.
        std::thread::sleep(REST);
        let before = settled_rss(fresh.child()?)?;
        let mut requests = Vec::new();
        for ask in 0..asks {
            requests.extend_from_slice(b"get ");
            requests.extend_from_slice(corpus.key(ask % corpus.keys()));
            requests.extend_from_slice(b"\r\n");
        }
        let mut open = Vec::new();
        for index in 0..clients {
            let mut stream = connect(fresh.peer.addresses[0], index, Some(NARROW))?;
            write_what_goes(&mut stream, &requests)?;
            open.push(stream);
        }
        // Long enough to find out that nothing is read.
        std::thread::sleep(REST);
        let more = settled_rss(fresh.child()?)?.saturating_sub(before);
        // The proxy serves others meanwhile.
        ask_once(&fresh.peer, clients, &corpus)?;
        Ok(format!("{:.1}", more as f64 / 1e3 / clients as f64))
    }

    fn half_a_set(&self, clients: usize, sent: usize, size: usize) -> Measured {
        let corpus = Corpus::new(1, size);
        let fresh = self.start(&corpus)?;
        let before = settled_rss(fresh.child()?)?;
        let mut request = [b"set ", corpus.key(0), b" 0", corpus.header_end()].concat();
        request.extend_from_slice(&corpus.value(0)[..sent]);
        let mut open = Vec::new();
        for index in 0..clients {
            let mut stream = connect(fresh.peer.addresses[0], index, None)?;
            stream
                .write_all(&request)
                .map_err(|e| format!("half a set: {e}"))?;
            open.push(stream);
        }
        let more = settled_rss(fresh.child()?)?.saturating_sub(before);
        ask_once(&fresh.peer, clients, &corpus)?;
        Ok(format!("{:.1}", more as f64 / 1e3 / clients as f64))
    }

    fn burst(&self, shape: &Shape, requests: usize) -> Measured {
        let corpus = Arc::new(Corpus::new(shape.keys, shape.size));
        let fresh = self.start(&corpus)?;
        let before = settled_rss(fresh.child()?)?;
        let mut load = Load::connect(&fresh.peer.addresses, shape.clone(), Arc::clone(&corpus))?;
        let mut passed = 0;
        while passed < requests {
            let (sample, _) = load.run(Duration::from_millis(500))?;
            passed += sample.ops as usize;
        }
        drop(load);
        std::thread::sleep(REST);
        let after = settled_rss(fresh.child()?)?;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        Ok(format!("{:.1}, {:.1}", mb(after), mb(before)))
    }
}

/// Opens a connection and waits for the reply to one get.
fn ask_once(peer: &Peer, index: usize, corpus: &Corpus) -> Result<TcpStream, String> {
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock => format!("no reply for {} s", SILENCE.as_secs()),
        _ => format!("connection {index}: {e}"),
    };
    let mut stream = connect(peer.addresses[0], index, None)?;
    stream.set_read_timeout(Some(SILENCE)).map_err(failed)?;
    let key = corpus.key(0);
    let request = [b"get ", key, b"\r\n"].concat();
    stream.write_all(&request).map_err(failed)?;
    let expected = [
        b"VALUE ",
        key,
        corpus.header_end(),
        corpus.value(0),
        b"\r\nEND\r\n",
    ]
    .concat();
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply).map_err(failed)?;
    if reply != expected {
        return Err(format!(
            "wrong reply: {}",
            reply[..reply.len().min(80)].escape_ascii()
        ));
    }
    Ok(stream)
}

/// Writes until all is written, or nothing has been taken for half a second.
fn write_what_goes(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .map_err(|e| format!("time limit: {e}"))?;
    match stream.write_all(bytes) {
        Err(e) if e.kind() != ErrorKind::WouldBlock => Err(format!("write: {e}")),
        _ => Ok(()),
    }
}
