//! keepalived/render: what it renders passes `keepalived -t`, what it refuses is named, the examples are what it prints.

use crate::common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::files::TempDir;
use common::source::repository;
use nix::unistd::geteuid;

fn render(arguments: &[&str]) -> Output {
    let mut command = Command::new(repository("keepalived/render"));
    command.args(arguments).output().expect("render runs")
}

/// A whole command line for a pair, and `more`.
fn pair(more: &[&str]) -> Output {
    const PAIR: &str =
        "--role master --interface eth0 --own 192.0.2.11 --peer 192.0.2.12 --vip 192.0.2.66 \
                        --router-id 61 --no-test --scripts /usr/libexec/magent";
    let mut words: Vec<&str> = PAIR.split_whitespace().collect();
    words.extend(more);
    render(&words)
}

#[track_caller]
fn printed(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// keepalived trusts scripts only when nobody but root can change them, and a configuration only when the interface is
/// there: root, and a network namespace. A directory with the scripts, or `None` and a loud word.
fn scripts(what: &str) -> Option<TempDir> {
    if !Path::new("/usr/sbin/keepalived").exists() {
        common::skipped(&format!("keepalived -t of {what}: no keepalived here"));
        return None;
    }
    let unshare = Command::new("unshare").args(["-n", "true"]).output();
    if !geteuid().is_root() || !unshare.is_ok_and(|output| output.status.success()) {
        common::skipped(&format!(
            "keepalived -t of {what}: needs root and network namespaces"
        ));
        return None;
    }
    let scripts = TempDir::new();
    for name in ["check_magent.sh", "notify_magent.sh"] {
        let copy = scripts.path(name);
        fs::copy(repository("keepalived").join(name), &copy).expect("a copy");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("mode");
    }
    Some(scripts)
}

/// Every combination through the real keepalived.
#[track_caller]
fn all_pass(profile: &str) {
    let Some(scripts) = scripts(profile) else {
        return;
    };
    let output = Command::new("unshare")
        .arg("-n")
        .arg(repository("tests/scripts/render-all.sh"))
        .arg(repository("keepalived/render"))
        .args([scripts.path("").trim_end_matches('/'), profile])
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("passed 112 failed 0\n"), "{text}");
}

#[test]
fn keepalived_takes_all_of_fast() {
    all_pass("fast");
}

#[test]
fn keepalived_takes_all_of_classic() {
    all_pass("classic");
}

/// The guides' files, mended: with this scripts' directory in place of /etc/keepalived.
#[test]
fn keepalived_takes_the_guides_files() {
    let Some(scripts) = scripts("the guides' files") else {
        return;
    };
    for role in ["master", "backup"] {
        let guide = repository("keepalived/guide").join(role);
        let script = scripts.path("magent.sh");
        fs::copy(guide.join("magent.sh"), &script).expect("a copy");
        let text = fs::read_to_string(guide.join("keepalived.conf")).expect("text");
        assert!(text.contains("\"/etc/keepalived/magent.sh\""));
        let config = scripts.path("keepalived.conf");
        fs::write(&config, text.replace("/etc/keepalived/magent.sh", &script)).expect("written");
        let output = Command::new("unshare")
            .args([
                "-n",
                "sh",
                "-c",
                "ip link add eth0 type veth && exec /usr/sbin/keepalived -t -f \"$0\"",
                &config,
            ])
            .output()
            .expect("unshare runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{role}: {said}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let table: &[(&[&str], &str)] = &[
        (&["--role", "slave"], "--role slave: not one of master backup"),
        (&["--vip", "192.0.2.300"], "--vip 192.0.2.300: not an IPv4 or IPv6 address"),
        (&["--vip", "1.2.3"], "--vip 1.2.3: not an IPv4 or IPv6 address"),
        (&["--vip", "2001:db8:::1"], "--vip 2001:db8:::1: not an IPv4 or IPv6 address"),
        (&["--vip", "1::2::3"], "--vip 1::2::3: not an IPv4 or IPv6 address"),
        (&["--vip", "1:2:3:4:5:6:7"], "--vip 1:2:3:4:5:6:7: not an IPv4 or IPv6 address"),
        (&["--vip", "192.0.2.66/24"], "--vip 192.0.2.66/24: an address without a prefix length (an address that moves is set as /32 or /128)"),
        (&["--vip", "192.0.2.66"], "--vip 192.0.2.66: given twice"),
        (&["--vip", "192.0.2.12"], "--vip 192.0.2.12: a node's own address cannot move"),
        (&["--other-vip", "192.0.2.11", "--other-router-id", "9"], "--vip 192.0.2.11: a node's own address cannot move"),
        (&["--peer", "192.0.2.11"], "--peer 192.0.2.11: the same as --own"),
        (&["--peer", "2001:db8::1"], "--peer 2001:db8::1: not of the same family as --own 192.0.2.11"),
        (&["--router-id", "0"], "--router-id 0: not a number from 1 to 255"),
        (&["--router-id", "256"], "--router-id 256: not a number from 1 to 255"),
        (&["--router-id", "x"], "--router-id x: not a number from 1 to 255"),
        (&["--interface", "eth0;reboot"], "--interface eth0;reboot: not the name of an interface"),
        (&["--interface", "an-interface-too-long"], "--interface an-interface-too-long: longer than 15 characters"),
        (&["--profile", "slow"], "--profile slow: not one of fast classic"),
        (&["--advert-int", "0"], "--advert-int 0: not a number from 0.01 to 40.95, at most two decimals"),
        (&["--advert-int", "0.001"], "--advert-int 0.001: not a number from 0.01 to 40.95, at most two decimals"),
        (&["--profile", "classic", "--advert-int", "0.5"], "--advert-int 0.5: not a number from 1 to 255"),
        (&["--multicast"], "--peer 192.0.2.12: not with --multicast"),
        (&["--other-vip", "192.0.2.67"], "--other-router-id: missing (--other-vip needs a router id of its own)"),
        (&["--other-vip", "192.0.2.67", "--other-router-id", "61"], "--other-router-id 61: the same as --router-id"),
        (&["--other-router-id", "62"], "--other-router-id 62: needs --other-vip"),
        (&["--other-vip", "2001:db8::6", "--other-router-id", "62"], "--other-vip 2001:db8::6: needs an IPv4 address beside it, as the nodes' own addresses are IPv4"),
        (&["--other-vip", "192.0.2.67", "--other-router-id", "62", "--priority", "7"], "--priority 7: not with --other-vip"),
        (&["--priority", "255"], "--priority 255: not a number from 1 to 254"),
        (&["--check", "socket"], "--check socket: not off, HOST:PORT, or the absolute path of a socket"),
        (&["--check", "/a b"], "--check /a b: a path of letters, digits and _ . / @ : + -"),
        (&["--check", "off", "--track-process", "off", "--track-file", "off"], "--check off --track-process off --track-file off: nothing would tell a dead proxy from a live one"),
        (&["--track-process", "yes"], "--track-process yes: not one of on off"),
        (&["--process", "sixteen-letters-"], "--process sixteen-letters-: longer than the 15 characters that the kernel keeps"),
        (&["--drain-file", "drain"], "--drain-file drain: not an absolute path"),
        (&["--script-user", "a\"b"], "--script-user a\"b: not a user name"),
        (&["--scripts", "here"], "--scripts here: not an absolute path"),
        (&["--name", "a pair"], "--name a pair: letters, digits and _"),
        (&["--name", ""], "--name: empty (letters, digits and _)"),
        (&["--real-server", "192.0.2.21"], "--port: missing (--real-server needs the port of the service)"),
        (&["--real-server", "pine", "--port", "1"], "--real-server pine: not ADDR, ADDR:PORT or [ADDR]:PORT"),
        (&["--real-server", "192.0.2.21:2", "--port", "1"], "--real-server 192.0.2.21:2: --lvs-method DR cannot change the port (only NAT can)"),
        (&["--real-server", "2001:db8::5", "--port", "1"], "--vip 192.0.2.66: no --real-server of the same family"),
        (&["--port", "1"], "--port 1: needs --real-server"),
        (&["--lvs-method", "NAT"], "--lvs-method NAT: needs --real-server"),
        (&["--vip"], "--vip: needs a value (--help lists the options)"),
        (&["--password", "x"], "--password: unknown option (--help lists them)"),
        (&["x"], "x: unknown option (--help lists them)"),
    ];
    for (more, message) in table {
        let output = pair(more);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{more:?}: {stderr}");
        assert_eq!(stderr, format!("render: {message}\n"), "{more:?}");
        assert!(output.stdout.is_empty(), "{more:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let whole = "--role master --interface eth0 --own 192.0.2.11 --peer 192.0.2.12 --vip 192.0.2.66 --router-id 61";
    let words: Vec<&str> = whole.split(' ').collect();
    for gone in (0..words.len()).step_by(2) {
        let mut rest = words.clone();
        rest.drain(gone..gone + 2);
        let output = render(&rest);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{stderr}");
        let start = format!("render: {}: missing (", words[gone]);
        assert!(stderr.starts_with(&start), "{stderr}");
    }
}

#[test]
fn the_options_do_what_they_say() {
    let has = |more: &[&str], lines: &[&str]| {
        let text = printed(&pair(more));
        for line in lines {
            let found = text.lines().any(|here| here.trim() == *line);
            assert!(found, "{more:?}: no line {line:?} in\n{text}");
        }
        assert!(!text.contains('%') && !text.contains("@ "), "{text}");
        text
    };
    let text = has(
        &[],
        &[
            "vrrp_version 3",
            "advert_int 0.1",
            "priority 254",
            "nopreempt",
            "script_user root",
            "enable_script_security",
            "script \"/usr/libexec/magent/check_magent.sh /run/magent/magent.sock 300\"",
            "process magent",
            "unicast_src_ip 192.0.2.11",
            "192.0.2.66/32 dev eth0",
            "virtual_router_id 61",
        ],
    );
    assert!(!text.contains("authentication {") && !text.contains("preempt_delay"));
    has(
        &["--profile=classic", "--role=backup"],
        &["vrrp_version 2", "advert_int 1", "priority 253"],
    );
    has(&["--preempt", "--preempt-delay", "7"], &["preempt_delay 7"]);
    has(
        &["--vip", "2001:db8::66"],
        &["virtual_ipaddress_excluded {", "2001:db8::66/128 dev eth0"],
    );
    has(
        &["--degraded", "leave"],
        &["script \"/usr/libexec/magent/check_magent.sh --strict /run/magent/magent.sock 300\""],
    );
    has(
        &["--other-vip", "192.0.2.67", "--other-router-id", "62"],
        &[
            "vrrp_instance magent_other {",
            "virtual_router_id 62",
            "priority 253",
            "preempt_delay 2",
        ],
    );
    has(
        &[
            "--port",
            "12000",
            "--real-server",
            "192.0.2.21",
            "--real-server",
            "192.0.2.22:12000",
        ],
        &[
            "virtual_server 192.0.2.66 12000 {",
            "real_server 192.0.2.21 12000 {",
            "real_server 192.0.2.22 12000 {",
        ],
    );
    for (off, word) in [
        (["--check", "off"], "vrrp_script"),
        (["--track-process", "off"], "track_process"),
        (["--track-file", "off"], "magent.track"),
        (["--drain-file", "off"], "magent.drain"),
        (["--notify", "off"], "notify_magent"),
    ] {
        let text = has(&off, &[]);
        let used = text
            .lines()
            .any(|line| line.contains(word) && !line.trim().starts_with('#'));
        assert!(!used, "{off:?}:\n{text}");
    }
}

/// The second line of an example is how it was made.
#[test]
fn the_examples_are_what_render_prints() {
    let mut seen = 0;
    for entry in fs::read_dir(repository("keepalived/examples")).expect("examples") {
        let path = entry.expect("entry").path();
        let example = fs::read_to_string(&path).expect("text");
        let made = example
            .lines()
            .find_map(|line| line.strip_prefix("# Made by: render "));
        let mut words: Vec<&str> = made.expect("how it was made").split(' ').collect();
        words.push("--no-test");
        assert_eq!(printed(&render(&words)), example, "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn help_lists_every_option() {
    let help = printed(&render(&["--help"]));
    let script = fs::read_to_string(repository("keepalived/render")).expect("text");
    let parser = script
        .split("while [ $# -gt 0 ]")
        .nth(1)
        .and_then(|rest| rest.split("\ndone\n").next())
        .expect("the parser");
    let options = parser.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    let options: Vec<&str> = options
        .filter(|word| word.starts_with("--") && word.len() > 3)
        .collect();
    assert!(options.len() > 25, "{options:?}");
    for option in options {
        assert!(help.contains(option), "{option}");
    }
}
