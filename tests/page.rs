//! The page of `--admin` in a real browser, and the same in a terminal.

use crate::common;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use common::browser::Browser;
use common::lit::Lit;
use common::magent::magent_binary;
use common::{wait_for, Port, PATIENCE};

impl Lit {
    fn url(&self) -> String {
        format!("http://{}/", self.address())
    }
}

/// What the page says of a server's state: the word, and the colour of its box.
fn state(browser: &Browser, server: &str) -> (String, String) {
    let script = format!(
        "const row = document.querySelector('tr[data-server=\"{server}\"]');
         const box = [...document.querySelectorAll('#topology g')].find(g => g.textContent.includes('{server}'));
         return row && box ? [row.dataset.state, box.querySelector('rect').className.baseVal] : ['', ''];"
    );
    let said = browser.run(&script);
    let word = |index: usize| said[index].as_str().unwrap_or_default().to_owned();
    (word(0), word(1))
}

/// Where pictures for the documentation are put, if they are wanted.
fn keep(name: &str, browser: &Browser) {
    let picture = browser.screenshot();
    assert!(picture.starts_with(b"\x89PNG"), "not a picture");
    if let Some(folder) = std::env::var_os("MAGENT_TEST_SCREENSHOTS") {
        let path = std::path::Path::new(&folder).join(name);
        std::fs::write(&path, picture).expect("the picture can be written");
    }
}

#[test]
fn a_dead_server_turns_red_and_a_copy_is_watched() {
    let mut lit = Lit::new(&["--resync-rate", "100"]);
    let Some(browser) = Browser::open(1200, 1500, false) else {
        return;
    };
    let mut client = lit.proxy.client();
    browser.visit(&lit.url());
    let name = format!("127.0.0.1:{}", lit.primaries[0].port());
    wait_for("the page shows a server that is up", PATIENCE, || {
        state(&browser, &name) == ("up".into(), "box good".into())
    });
    // Servers that start together are looked through once.
    wait_for("all is well", PATIENCE, || {
        client.get("k1");
        let health = "return document.querySelector('#health').textContent;";
        browser.run(health) == "all is well"
    });
    // About half of them for each: filling one takes some 20 s.
    for n in 0..4000 {
        client.set(&format!("k{n}"), "value");
    }
    // Charts have lines when there are two samples.
    wait_for("requests are drawn", PATIENCE, || {
        client.get("k1");
        let drawn = "return document.querySelector('#chart-requests path').getAttribute('d').includes('L');";
        browser.run(drawn) == true
    });
    keep("page.png", &browser);

    lit.primaries[0].kill();
    let died = Instant::now();
    wait_for("it is red", PATIENCE, || {
        state(&browser, &name) == ("down".into(), "box bad".into())
    });
    let took = died.elapsed();
    // Two seconds are promised; the rest is for a busy machine.
    assert!(took < PATIENCE / 2, "red after {took:?}");
    keep("page-down.png", &browser);

    lit.primaries[0].restart();
    let width = "const bar = document.querySelector('#resync-bar'); return bar.closest('section').hidden ? -1 : parseFloat(bar.style.width);";
    let mut widths = Vec::new();
    wait_for("the bar moves", 2 * PATIENCE, || {
        client.get("k1");
        let width = browser.run(width).as_f64().unwrap_or(-1.0);
        if width >= 0.0 && widths.last() != Some(&width) {
            widths.push(width);
        }
        if widths.len() == 2 {
            keep("page-resync.png", &browser);
        }
        widths.len() >= 3
    });
    assert!(widths.windows(2).all(|two| two[0] < two[1]), "{widths:?}");
    let events = browser.run("return document.querySelector('#events').textContent;");
    let events = events.as_str().unwrap().to_owned();
    for word in ["server_down", "server_cold", "resync_begun"] {
        assert!(events.contains(word), "{word} in {events}");
    }
    let errors = browser.run("return document.body.classList.contains('lost');");
    assert_eq!(errors, false);
}

#[test]
fn it_is_readable_on_a_phone_and_in_the_dark() {
    let lit = Lit::new(&[]);
    let Some(browser) = Browser::open(500, 900, true) else {
        return;
    };
    browser.visit(&lit.url());
    let name = format!("127.0.0.1:{}", lit.primaries[0].port());
    wait_for("the page is there", PATIENCE, || {
        state(&browser, &name).0 == "up"
    });
    let wide = browser.run("return document.documentElement.scrollWidth <= window.innerWidth;");
    assert_eq!(wide, true, "nothing sticks out");
    let (paper, ink) = (
        browser.run("return getComputedStyle(document.body).backgroundColor;"),
        browser.run("return getComputedStyle(document.body).color;"),
    );
    assert_ne!(paper, ink);
    keep("page-phone.png", &browser);
}

#[test]
fn a_proxy_that_is_gone_is_said_to_be() {
    let lit = Lit::new(&[]);
    let Some(browser) = Browser::open(900, 900, false) else {
        return;
    };
    browser.visit(&lit.url());
    let lost = "return document.body.classList.contains('lost');";
    wait_for("the page is there", PATIENCE, || {
        browser.run("return document.querySelectorAll('#servers tr').length;") == 4
    });
    assert_eq!(browser.run(lost), false);
    drop(lit);
    wait_for("the page says so", PATIENCE, || browser.run(lost) == true);
}

#[test]
fn top_prints_plain_text_where_there_is_no_terminal() {
    let lit = Lit::new(&[]);
    let address = lit.address();
    let mut child = Command::new(magent_binary())
        .args(["--top", &address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    let name = format!("127.0.0.1:{}", lit.primaries[1].port());
    while !text.contains(&name) || !text.ends_with("\n\n") {
        let mut bytes = [0; 4096];
        let count = out.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended: {text}");
        text += std::str::from_utf8(&bytes[..count]).unwrap();
    }
    assert!(text.contains("healthy") && !text.contains('\x1b'), "{text}");
    // Whoever reads goes away.
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn top_in_a_terminal_ends_with_q_and_leaves_it_as_it_was() {
    let lit = Lit::new(&[]);
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut terminal = File::from(pty.master);
    let before = nix::sys::termios::tcgetattr(&terminal).unwrap();
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = common::process::mortal(&magent_binary())
        .args(["--top", &lit.address()])
        .env("TERM", "xterm")
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .unwrap();
    // When the last one that has it open ends, reading is an error.
    drop(pty.slave);
    let mut text = String::new();
    let mut read_until = |terminal: &mut File, part: &str| {
        while !text.contains(part) {
            let mut bytes = [0; 4096];
            let count = terminal.read(&mut bytes);
            let count = count.unwrap_or_else(|error| panic!("no {part:?}: {error}: {text}"));
            text += &String::from_utf8_lossy(&bytes[..count]);
        }
    };
    read_until(&mut terminal, "\x1b[32mup");
    read_until(&mut terminal, "\x1b[?1049h");
    terminal.write_all(b"q").unwrap();
    read_until(&mut terminal, "\x1b[?1049l");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let after = nix::sys::termios::tcgetattr(&terminal).unwrap();
    assert_eq!(before.local_flags, after.local_flags);
}

#[test]
fn top_says_when_nobody_answers() {
    let nobody = Port::claim();
    let (code, said) =
        common::magent::run_magent(&["--top", &format!("127.0.0.1:{}", nobody.number())]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("Connection refused"), "{said}");
}
