//! `make bench-growth`: how magent's CPU time per request grows with what may grow. Tables and pictures go to docs/performance.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::corpus::Corpus;
use crate::ground::Ground;
use crate::load::Load;
use crate::peers::{Kind, Peer, Place, Servers};
use crate::report::median;
use crate::rows::Shape;
use crate::svg;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(1000);
const LEAD_IN: Duration = Duration::from_millis(200);
/// Descriptors that are kept for other things than clients.
const DESCRIPTORS_SPARE: usize = 600;
/// A cost that grows faster than this power of its cause grows worse than linearly; the rest is noise.
const WORST: f64 = 1.1;

/// One thing that grows.
struct Axis {
    /// Also the name of its picture.
    name: &'static str,
    title: &'static str,
    x: &'static str,
    points: Vec<Point>,
}

/// One value of it.
struct Point {
    x: usize,
    shape: Shape,
    primaries: usize,
    backups: usize,
}

/// What was measured at a point.
struct Figure {
    x: usize,
    /// CPU of the proxy per request in us, and the measurements' extremes.
    cost: f64,
    from: f64,
    to: f64,
    ops: f64,
    busy: f64,
}

const USUAL: Shape = Shape {
    conns: 50,
    depth: 1,
    gets_percent: 90,
    keys_per_get: 1,
    keys: 10_000,
    size: 100,
    rate: None,
    binary: false,
};

fn axes(most: usize) -> Vec<Axis> {
    let point = |x, shape| Point {
        x,
        shape,
        primaries: 4,
        backups: 0,
    };
    let conns = [1, 10, 50, 200, 1000, 5000, 20_000, 50_000].map(|n: usize| n.min(most));
    let mut conns = conns.to_vec();
    conns.dedup();
    let depths = [1, 2, 4, 8, 16, 32, 64, 128, 256];
    let sizes = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];
    let keys = [1, 2, 5, 10, 50, 100, 500, 1000, 5000, 10_000];
    let servers = [1, 2, 4, 8, 16, 32, 64];
    let multi = |keys_per_get| Shape {
        conns: if keys_per_get >= 1000 { 4 } else { 20 },
        gets_percent: 100,
        keys_per_get,
        ..USUAL
    };
    vec![
        Axis {
            name: "connections",
            title: "Connections, each with one request at a time",
            x: "connections",
            points: conns
                .iter()
                .map(|&conns| point(conns, Shape { conns, ..USUAL }))
                .collect(),
        },
        Axis {
            name: "depth",
            title: "Requests in flight on each of 50 connections",
            x: "depth",
            points: depths
                .map(|depth| point(depth, Shape { depth, ..USUAL }))
                .into(),
        },
        Axis {
            name: "size",
            title: "Size of values, 90/10 get/set",
            x: "bytes",
            points: sizes
                .map(|size| {
                    let (conns, keys) = if size < 100_000 {
                        (50, 10_000)
                    } else {
                        (16, 64)
                    };
                    let shape = Shape {
                        conns,
                        keys,
                        size,
                        ..USUAL
                    };
                    point(size, shape)
                })
                .into(),
        },
        Axis {
            name: "keys",
            title: "Keys in one get, over 4 servers",
            x: "keys",
            points: keys.map(|keys| point(keys, multi(keys))).into(),
        },
        Axis {
            name: "servers",
            title: "Servers, single gets and sets",
            x: "servers",
            points: servers
                .map(|primaries| Point {
                    primaries,
                    ..point(primaries, USUAL)
                })
                .into(),
        },
        Axis {
            name: "servers-50-keys",
            title: "Servers, gets of 50 keys",
            x: "servers",
            points: servers
                .map(|primaries| Point {
                    primaries,
                    ..point(primaries, multi(50))
                })
                .into(),
        },
        Axis {
            name: "copies",
            title: "Copies of each key: 2 primaries and 0 to 4 backups (--copies all), sets",
            x: "copies",
            points: [0, 1, 2, 3, 4]
                .map(|backups| Point {
                    x: backups + 1,
                    primaries: 2,
                    backups,
                    shape: Shape {
                        gets_percent: 0,
                        ..USUAL
                    },
                })
                .into(),
        },
    ]
}

/// All axes. False: something went wrong, and has been printed.
pub fn run(args: &[String]) -> Result<bool, String> {
    let more = [
        (
            "out",
            "where tables and pictures go (docs/performance)",
            "DIR",
        ),
        ("axes", "only these", "AXIS,AXIS"),
    ];
    let ground = Ground::new(args, &[Kind::Magent], &more)?;
    let out = ground.text("out").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/performance"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let only = ground.text("axes");
    let most = ground.descriptors.saturating_sub(DESCRIPTORS_SPARE);
    let mut tables = String::new();
    let mut fine = true;
    for axis in axes(most) {
        let wanted = |list: &String| list.split(',').any(|name| name == axis.name);
        if !only.as_ref().is_none_or(wanted) {
            continue;
        }
        eprint!("{} ", axis.name);
        let mut figures = Vec::new();
        for point in &axis.points {
            eprint!(".");
            match measure(&ground, point) {
                Ok(figure) => figures.push(figure),
                Err(why) => {
                    fine = false;
                    println!("FAILED {} {}: {why}", axis.name, point.x);
                }
            }
        }
        eprintln!();
        table(&axis, &figures, &mut tables);
        let path = out.join(format!("{}.svg", axis.name));
        let line: Vec<(f64, f64)> = figures.iter().map(|f| (f.x as f64, f.cost)).collect();
        std::fs::write(
            &path,
            svg::plot(axis.title, axis.x, "CPU us per request", &line),
        )
        .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    println!("{tables}");
    if only.is_none() {
        let path = out.join("growth.txt");
        let text = format!("{}\n{tables}", ground.about());
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(fine)
}

fn table(axis: &Axis, figures: &[Figure], out: &mut String) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", axis.title);
    let _ = writeln!(
        out,
        "  {:>11} {:>10} {:>17} {:>9} {:>5} {:>6}",
        axis.x, "CPU us", "from-to", "ops/s", "busy", "power"
    );
    let mut before: Option<&Figure> = None;
    for figure in figures {
        let power = before.map(|before| {
            let causes = figure.x as f64 / before.x as f64;
            (figure.cost / before.cost).ln() / causes.ln()
        });
        let shown = power.map_or(String::new(), |power| format!("{power:.2}"));
        let bad = if power.is_some_and(|power| power > WORST) {
            "  worse than linear"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "  {:>11} {:>10.2} {:>17} {:>9.0} {:>4.0}% {shown:>6}{bad}",
            figure.x,
            figure.cost,
            format!("{:.2}-{:.2}", figure.from, figure.to),
            figure.ops,
            figure.busy * 100.0
        );
        before = Some(figure);
    }
    out.push('\n');
}

fn measure(ground: &Ground, point: &Point) -> Result<Figure, String> {
    let shape = &point.shape;
    let corpus = Arc::new(Corpus::new(shape.keys, shape.size));
    let mut place: Place = ground.place();
    let servers = Servers::start(&mut place, point.primaries + point.backups, &corpus, false)?;
    let peer = Peer::start_magent(&mut place, &servers, point.primaries, &["--copies", "all"])?;
    let child = peer.child.as_ref().ok_or("no proxy")?;
    let mut load = Load::connect(&peer.addresses, shape.clone(), Arc::clone(&corpus))?;
    load.run(ROUND / 2)?;
    let mut costs = Vec::new();
    let (mut ops, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        load.run(LEAD_IN)?;
        let before = child.cpu_ns()?;
        let (sample, took) = load.run(ROUND)?;
        let used = child.cpu_ns()?.saturating_sub(before) as f64 / 1e3;
        if sample.misses > 0 {
            return Err(format!("{} keys were not found", sample.misses));
        }
        costs.push(used / sample.ops.max(1) as f64);
        ops.push(sample.ops as f64 / took.as_secs_f64());
        busy.push(used / 1e6 / took.as_secs_f64());
    }
    Ok(Figure {
        x: point.x,
        cost: median(&costs),
        from: costs.iter().copied().fold(f64::INFINITY, f64::min),
        to: costs.iter().copied().fold(0.0, f64::max),
        ops: median(&ops),
        busy: median(&busy),
    })
}
