//! The guide's chapters on one machine, run as they are printed: each command is typed, and what it prints must be what
//! stands below it. In namespaces of their own, as they use memcached's ports and kill by name.

use crate::common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::files::TempDir;
use common::process::{mortal, run};
use common::source::read;
use common::{wait_for, PATIENCE};

/// What is typed, and what is printed then.
#[derive(Default, Debug)]
struct Step {
    typed: String,
    printed: Vec<String>,
    /// The port that it is typed into; a shell when there is none.
    session: Option<u16>,
}

/// Commands of memcached behind which a line of data stands.
const WITH_DATA: [&str; 2] = ["set ", "add "];
const WITHOUT_DATA: [&str; 3] = ["get ", "stats ", "quit"];

/// The steps of the blocks between two headings. In a session a command is known by its verb, data by the line before it.
fn steps(page: &str, from: &str, to: &str) -> Vec<Step> {
    let (_, rest) = page.split_once(from).expect(from);
    let (chapters, _) = rest.split_once(to).expect(to);
    let mut steps: Vec<Step> = Vec::new();
    let mut session: Option<u16> = None;
    let mut data_follows = false;
    let mut is_answer = false;
    for line in chapters.lines() {
        let Some(line) = line.strip_prefix("    ") else {
            assert!(session.is_none(), "a session without quit before: {line}");
            is_answer = false;
            continue;
        };
        let typed = if session.is_some() {
            let has_data = WITH_DATA.iter().any(|verb| line.starts_with(verb));
            let is_command = has_data || WITHOUT_DATA.iter().any(|verb| line.starts_with(verb));
            let is_typed = is_command || data_follows;
            data_follows = has_data;
            is_typed.then_some(line)
        } else if let Some(port) = line.strip_prefix("$ telnet 127.0.0.1 ") {
            session = Some(port.parse().expect("a port"));
            steps.push(Step {
                session,
                ..Step::default()
            });
            continue;
        } else {
            let shell = line.strip_prefix("$ ");
            is_answer |= shell.is_some();
            shell.or((!is_answer).then_some(line))
        };
        match typed {
            Some(typed) => steps.push(Step {
                typed: typed.to_owned(),
                session,
                ..Step::default()
            }),
            None => {
                let step = steps.last_mut().expect("something was typed");
                step.printed.push(line.to_owned());
            }
        }
        if session.is_some() && line == "quit" {
            session = None;
            is_answer = true;
        }
    }
    steps
}

/// A shell in namespaces of its own.
struct Shell {
    child: Child,
    typed: ChildStdin,
    printed: BufReader<ChildStdout>,
}

impl Shell {
    fn start(path: &str) -> Shell {
        let all = "-n -p -m -f --mount-proc --kill-child bash --noprofile --norc";
        let mut child = mortal("unshare")
            .args(all.split(' '))
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let typed = child.stdin.take().expect("piped");
        let printed = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Shell {
            child,
            typed,
            printed,
        };
        shell.run("exec 2>&1; ip link set lo up");
        shell
    }

    /// What a command prints.
    fn run(&mut self, command: &str) -> Vec<String> {
        writeln!(self.typed, "{command}\necho '== end'").expect("it reads");
        let mut printed = Vec::new();
        loop {
            let mut line = String::new();
            let count = self.printed.read_line(&mut line).expect("it prints");
            assert!(count > 0, "{command}: the shell has ended: {printed:?}");
            match line.trim_end() {
                "== end" => return printed,
                line => printed.push(line.to_owned()),
            }
        }
    }

    /// Types a line into the session, and takes so many lines of answer.
    fn type_in(&mut self, line: &str, answers: usize) -> Vec<String> {
        let one = "IFS= read -r -t 60 answer <&3 && echo \"${answer%$'\\r'}\"";
        let take = format!("for n in $(seq {answers}); do {one}; done");
        self.run(&format!("printf '%s\\r\\n' '{line}' >&3; {take}"))
    }

    /// Waits until the proxy has noticed what happened to its servers: as many are up as run.
    fn settle(&mut self) {
        let all = "for line in 'get key1 key2' 'stats servers' quit; do printf '%s\\r\\n' \"$line\" >&3; done; cat <&3";
        wait_for("the proxy has noticed", PATIENCE, || {
            // Servers are filled only while somebody asks for keys.
            self.run("exec 3<>/dev/tcp/127.0.0.1/12000");
            let stats = self.run(all);
            let up = stats.iter().filter(|line| line.ends_with(":state up"));
            self.run("pgrep -c -x memcached") == [up.count().to_string()]
        });
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_chapters_on_one_machine_are_as_printed() {
    let (code, why) = run(Command::new("unshare").args(["-n", "-p", "-m", "-f", "true"]));
    if !nix::unistd::Uid::effective().is_root() || code != 0 {
        return common::skipped(&format!("no namespaces here, or not root: {why}"));
    }
    let steps = steps(&read("docs/guide.zh-CN.md"), "\n## 三、", "\n## 五、");
    let sessions = steps.iter().filter(|step| step.typed.is_empty());
    assert!(steps.len() > 50 && sessions.count() > 8, "{steps:#?}");

    let directory = TempDir::new();
    symlink(env!("CARGO_BIN_EXE_magent"), directory.path("magent")).expect("link");
    let path = std::env::var("PATH").expect("PATH");
    let mut shell = Shell::start(&format!("{}:{path}", directory.path("")));
    for step in &steps {
        let printed = match step.session {
            Some(port) if step.typed.is_empty() => {
                shell.run(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}"))
            }
            Some(_) => shell.type_in(&step.typed, step.printed.len()),
            None => shell.run(&step.typed),
        };
        assert_eq!(printed, step.printed, "{}", step.typed);
        let words: Vec<&str> = step.typed.split(' ').collect();
        let changes = match words[..] {
            ["magent", "-u", ..] | ["pkill", "-9", ..] => true,
            ["memcached", ..] => shell.run("pgrep -x magent") != [""; 0],
            _ => false,
        };
        if changes {
            shell.settle();
        }
    }
}
