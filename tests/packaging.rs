//! What is shipped beside the binary: units, scripts, man page, `make install`, the Debian package.

use crate::common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::Path;
use std::process::Command;

use common::files::TempDir;
use common::process::{here, run};
use common::source::{read, repository};

/// The files below a directory, relative to it.
fn files(root: &str) -> BTreeSet<String> {
    let (_, text) = run(Command::new("find").args([root, "!", "-type", "d", "-printf", "%P\n"]));
    text.lines().map(ToString::to_string).collect()
}

fn install(action: &str, root: &str, prefix: &str, sysconfdir: &str) -> String {
    let (code, text) = run(Command::new(repository("systemd/packaging/install.sh"))
        .args([action, env!("CARGO_BIN_EXE_magent")])
        .env("DESTDIR", root)
        .env("PREFIX", prefix)
        .env("SYSCONFDIR", sysconfdir));
    assert_eq!(code, 0, "{text}");
    text
}

const UNITS: [&str; 4] = [
    "magent.service",
    "magent@.service",
    "magent-watch.service",
    "magent-watch@.service",
];

#[test]
fn an_instance_is_like_the_service() {
    for name in ["magent", "magent-watch"] {
        let settings = |text: String| -> Vec<String> {
            let lines = text
                .lines()
                .filter(|line| !line.starts_with(['#', ';']) && !line.is_empty());
            lines
                .filter(|line| !line.starts_with("Description="))
                .map(ToString::to_string)
                .collect()
        };
        let expected = read(&format!("systemd/{name}.service"))
            .replace("/run/magent/magent.", "/run/magent/%i.")
            .replace("/etc/magent/magent.conf", "/etc/magent/%i.conf")
            .replace("-/etc/default/magent", "-/etc/default/magent-%i")
            .replace("After=magent.service", "After=magent@%i.service");
        let instance = read(&format!("systemd/{name}@.service"));
        assert_eq!(settings(instance), settings(expected), "{name}");
    }
}

#[test]
fn systemd_takes_the_units() {
    if !here("systemd-analyze") {
        common::skipped("no systemd-analyze here");
        return;
    }
    // verify wants the programs to exist: units of an installation, of which only the place of the binary matters.
    let root = TempDir::new();
    let prefix = root.path("usr");
    install("install", "", &prefix, &root.path("etc"));
    let units = format!("{prefix}/lib/systemd/system");
    fs::create_dir_all(format!("{units}/keepalived.service.d")).expect("directory");
    fs::copy(
        repository("systemd/examples/keepalived.service.d/magent.conf"),
        format!("{units}/keepalived.service.d/magent.conf"),
    )
    .expect("drop-in");
    fs::write(
        format!("{units}/keepalived.service"),
        "[Service]\nExecStart=/bin/true\n",
    )
    .expect("unit");
    let mut paths: Vec<String> = UNITS
        .iter()
        .map(|unit| format!("{units}/{}", unit.replace('@', "@two")))
        .collect();
    for (unit, path) in UNITS.iter().zip(&paths) {
        if !Path::new(path).exists() {
            symlink(format!("{units}/{unit}"), path).expect("instance");
        }
    }
    paths.push(format!("{units}/keepalived.service"));
    let socket = format!("{units}/magent.socket");
    fs::copy(repository("systemd/examples/magent.socket"), &socket).expect("socket");
    paths.push(socket);
    let (code, text) = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .env("SYSTEMD_UNIT_PATH", format!("{units}:"))
        .args(&paths));
    // Other units of this host may be complained of; ours may not.
    let ours: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("magent"))
        .collect();
    assert!(ours.is_empty() && code == 0, "{code}: {text}");

    for unit in UNITS {
        let (code, text) = run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
            .arg(format!("{units}/{unit}")));
        let told = text.lines().last().unwrap_or_default();
        assert!(
            code == 0 && told.contains("Overall exposure level"),
            "{text}"
        );
    }
}

/// Each line of the hardening is explained: where it stands, or, for the watcher, in magent.service.
#[test]
fn every_setting_has_a_comment() {
    let unit = read("systemd/magent.service");
    let mut explained = false;
    for line in unit.lines() {
        let is_setting = line.contains('=') && !line.starts_with('#');
        assert!(
            !is_setting || explained || plain(line),
            "{line}: no comment above it"
        );
        explained = line.starts_with('#') || (is_setting && explained);
    }
    let watcher = read("systemd/magent-watch.service");
    let hardening = watcher
        .split("# The hardening")
        .nth(1)
        .expect("its hardening");
    for line in hardening
        .lines()
        .skip(1)
        .take_while(|line| *line != "[Install]")
    {
        let name = line.split('=').next().unwrap_or_default();
        let known = line.starts_with("PrivateNetwork") || unit.contains(&format!("\n{name}="));
        assert!(
            line.is_empty() || line.starts_with('#') || known,
            "{line}: not explained in magent.service"
        );
    }
}

/// Settings that say themselves what they do.
fn plain(line: &str) -> bool {
    ["Description=", "Documentation=", "WantedBy="]
        .iter()
        .any(|name| line.starts_with(name))
}

#[test]
fn install_and_uninstall() {
    for (prefix, sysconfdir) in [("/usr", "/etc"), ("/opt/cache", "/opt/options")] {
        let root = TempDir::new();
        let root = root.path("");
        let root = root.trim_end_matches('/');
        install("install", root, prefix, sysconfdir);
        let all = files(root);
        let at = |path: &str| format!("{}/{path}", &prefix[1..]);
        for path in [
            "bin/magent",
            "libexec/magent/check_magent.sh",
            "libexec/magent/magent-check",
            "libexec/magent/render",
            "lib/systemd/system/magent.service",
            "lib/sysusers.d/magent.conf",
            "share/magent/keepalived/keepalived.conf.in",
            "share/man/man8/magent.8",
            "share/bash-completion/completions/magent",
            "share/doc/magent/README.md",
            "share/doc/magent/docs/high-availability.md",
            "share/doc/magent/examples/fast-master.conf",
            "share/doc/magent/examples/guide/backup/magent.sh",
        ] {
            assert!(all.contains(&at(path)), "{path} in {all:#?}");
        }
        // Everything that says where something is says where it is now.
        for path in &all {
            let text = fs::read(format!("{root}/{path}")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if path.ends_with(".service") || path.ends_with(".conf") {
                let strays = text.contains("/usr/bin/magent") || text.contains("/etc/magent");
                assert!(!strays || prefix == "/usr", "{path}");
            }
            let mode = fs::symlink_metadata(format!("{root}/{path}"))
                .expect("there")
                .mode()
                & 0o7777;
            let is_program = path.contains("bin/") || path.contains("libexec/");
            let expected = if is_program { 0o755 } else { 0o644 };
            assert!(mode == expected || mode == 0o777, "{path}: {mode:o}");
        }
        // render finds its templates, and its scripts beside it.
        let pair = "--role master --interface eth0 --own 192.0.2.1 --peer 192.0.2.2 --vip 192.0.2.3 --router-id 9 --no-test";
        let (code, text) = run(
            Command::new(format!("{root}{prefix}/libexec/magent/render")).args(pair.split(' ')),
        );
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains(&format!("\"{root}{prefix}/libexec/magent/check_magent.sh ")),
            "{text}"
        );

        // The administrator's file is left alone, by a second installation and by the removal.
        let options = format!("{root}{sysconfdir}/magent/magent.conf");
        fs::write(&options, "MAGENT_ARGS=\"-n 9\"\n").expect("written");
        let said = install("install", root, prefix, sysconfdir);
        assert!(said.contains("magent.conf is kept as it is"), "{said}");
        assert_eq!(files(root), all);
        assert_eq!(
            fs::read_to_string(&options).expect("there"),
            "MAGENT_ARGS=\"-n 9\"\n"
        );
        let said = install("uninstall", root, prefix, sysconfdir);
        assert!(
            said.contains("magent.conf was changed and is kept"),
            "{said}"
        );
        assert_eq!(
            files(root),
            BTreeSet::from([format!("{}/magent/magent.conf", &sysconfdir[1..])])
        );
        // Unchanged, it goes too, and the directories with it.
        fs::remove_file(&options).expect("removed");
        install("install", root, prefix, sysconfdir);
        install("uninstall", root, prefix, sysconfdir);
        assert_eq!(files(root), BTreeSet::new());
        let (_, rest) =
            run(Command::new("find").args([root, "-mindepth", "1", "-name", "*magent*"]));
        assert_eq!(rest, "");
    }
}

/// The package in a booted system: see tests/scripts/package-drill.sh.
#[test]
fn the_package_installs_upgrades_and_goes() {
    if !here("cargo-deb") || !here("dpkg-deb") {
        common::skipped("no cargo-deb here (make deb installs it), or no dpkg");
        return;
    }
    // Where cargo-deb looks for a built binary.
    let target = TempDir::new();
    fs::create_dir_all(target.path("release")).expect("directory");
    // Without its debug symbols, which take a minute to pack.
    let (code, text) = run(Command::new("strip").args([
        "-o",
        &target.path("release/magent"),
        env!("CARGO_BIN_EXE_magent"),
    ]));
    assert_eq!(code, 0, "{text}");
    let drill = TempDir::new();
    for (name, version) in [("old.deb", "1.0.0-1"), ("new.deb", "1.0.0-2")] {
        let (code, text) = run(Command::new(repository("systemd/packaging/deb.sh"))
            .args([&target.path("release/magent"), &drill.path(name), version])
            .env("CARGO_TARGET_DIR", target.path("")));
        assert_eq!(code, 0, "{text}");
    }
    // The package has what `make install` installs.
    let (root, unpacked) = (TempDir::new(), TempDir::new());
    install("install", &root.path(""), "/usr", "/etc");
    let (code, text) =
        run(Command::new("dpkg-deb").args(["-x", &drill.path("new.deb"), &unpacked.path("")]));
    assert_eq!(code, 0, "{text}");
    let mut expected = files(&root.path(""));
    expected.remove("usr/share/man/man8/magent.8");
    expected.extend([
        "usr/share/man/man8/magent.8.gz".to_string(),
        "usr/share/doc/magent/copyright".to_string(),
    ]);
    assert_eq!(files(&unpacked.path("")), expected);

    fs::copy(
        repository("tests/scripts/package-drill.sh"),
        drill.path("package-drill.sh"),
    )
    .expect("copy");
    let (code, text) = run(Command::new(repository("tests/scripts/booted.sh"))
        .arg(drill.path(""))
        .args([
            "/drill/package-drill.sh",
            "/drill/old.deb",
            "/drill/new.deb",
        ]));
    if code == 77 {
        common::skipped(&format!("in a booted system: {text}"));
        return;
    }
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("ok: nothing is left"), "{text}");
}
