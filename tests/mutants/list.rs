//! The list of small bugs, `mutants.txt`: read, checked against the sources, and planted in them.

use std::path::Path;

/// Where the files of the list are.
pub const CORE: &str = "src/proxy";

/// A bug of one line.
#[derive(Debug)]
pub struct Mutant {
    /// Its file, below [`CORE`].
    pub file: String,
    /// What stands in front of the place, the place, what becomes of it, and what stands behind.
    parts: [String; 4],
    /// What it breaks.
    pub breaks: String,
    /// Why the simulator need not find it.
    pub survives: Option<String>,
}

impl Mutant {
    /// The line as it has to stand in the source.
    pub fn line(&self) -> String {
        let [before, old, _, after] = &self.parts;
        [before, old, after].map(String::as_str).concat()
    }

    /// The line with both in it; the bug is done when `number` is planted.
    fn planted(&self, number: usize) -> String {
        let [before, old, new, after] = &self.parts;
        let both = format!("if crate::mutant({number}) {{ {new} }} else {{ {old} }}");
        if old.ends_with(';') {
            format!("{before}{both}{after}")
        } else {
            format!("{before}({both}){after}")
        }
    }
}

/// Reads the list.
pub fn read(text: &str) -> Result<Vec<Mutant>, String> {
    let mut mutants: Vec<Mutant> = Vec::new();
    let mut file = None;
    let mut parts = None;
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("mutants.txt, line {}: {what}", at + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(text) = line.strip_prefix("    ") else {
            file = Some(line.to_string());
            continue;
        };
        if let Some(why) = text.strip_prefix("survives: ") {
            let mutant = mutants.last_mut().ok_or(wrong("of what?"))?;
            mutant.survives = Some(why.to_string());
        } else if let Some(file) = file.take() {
            let (before, rest) = text.split_once("[[").ok_or(wrong("no [["))?;
            let (old, rest) = rest.split_once(" ==> ").ok_or(wrong("no ==>"))?;
            let (new, after) = rest.rsplit_once("]]").ok_or(wrong("no ]]"))?;
            if old == new {
                return Err(wrong("it changes nothing"));
            }
            parts = Some((file, [before, old, new, after].map(String::from)));
        } else {
            let (file, parts) = parts.take().ok_or(wrong("no line of a file"))?;
            mutants.push(Mutant {
                file,
                parts,
                breaks: text.to_string(),
                survives: None,
            });
        }
    }
    Ok(mutants)
}

/// Plants all bugs in the sources below `root`, each behind its number; returns what the list and the sources do not agree in.
/// Nothing is written unless `writes`.
pub fn plant(mutants: &[Mutant], root: &Path, writes: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, mutant) in (1..).zip(mutants) {
        let path = root.join(CORE).join(&mutant.file);
        let Ok(text) = std::fs::read_to_string(&path) else {
            wrong.push(format!("{}: there is no such file", mutant.file));
            continue;
        };
        let wanted = mutant.line();
        let count = text.lines().filter(|line| line.trim() == wanted).count();
        if count != 1 {
            wrong.push(format!("{}: {count} times: {wanted}", mutant.file));
            continue;
        }
        if writes {
            let lines = text.lines().map(|line| match line.trim() == wanted {
                true => mutant.planted(number),
                false => line.to_string(),
            });
            let text = lines.collect::<Vec<_>>().join("\n") + "\n";
            if let Err(error) = std::fs::write(&path, text) {
                wrong.push(format!("{}: {error}", path.display()));
            }
        }
    }
    wrong
}
