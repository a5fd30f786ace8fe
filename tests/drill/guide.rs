//! A node the old guides' way: keepalived's script starts the proxy (`keepalived/guide`).
//!
//! keepalived, its script and what that starts run in a process namespace of the node's own, as the standby's script kills
//! by name; and with a host name of its own, which tells the proxies apart. The files are used as they are shipped,
//! but for two paths.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::process::{command, Place};
use super::Outcome;

/// Puts the files into the node's folder.
pub fn write_files(dir: &Path, is_first: bool) -> Outcome<()> {
    let role = if is_first { "master" } else { "backup" };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("keepalived/guide");
    for file in ["keepalived.conf", "magent.sh"] {
        let from = source.join(role).join(file);
        let text = fs::read_to_string(&from).map_err(|e| format!("{}: {e}", from.display()))?;
        let here = dir.display().to_string();
        let text = text
            .replace("/etc/keepalived/", &format!("{here}/"))
            .replace("/usr/bin/magent ", &format!("{here}/magent "));
        let to = dir.join(file);
        fs::write(&to, text).map_err(|e| format!("{}: {e}", to.display()))?;
    }
    let script = dir.join("magent.sh");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&script, mode).map_err(|e| format!("{}: {e}", script.display()))
}

/// keepalived as the node's only process but init, which goes on when keepalived ends.
pub fn keepalived(name: &str, args: &[String]) -> Command {
    let init = "hostname \"$0\"; keepalived \"$@\" & while :; do wait; sleep 1; done";
    let mut words: Vec<String> = "--uts --pid --fork --kill-child --mount-proc -- sh -c"
        .split(' ')
        .map(str::to_string)
        .collect();
    words.push(init.to_string());
    words.push(format!("node-{name}"));
    words.extend_from_slice(args);
    command(Place::In(name), Path::new("unshare"), &words)
}
