//! What is measured: every verb at two sizes, in front of servers without and with copies.

use std::fmt::Write;

/// Clients that ask in the same turn, as with 50 connections under load. Those that ask for 50 keys are fewer.
const CLIENTS: usize = 50;
const CLIENTS_MULTI: usize = 10;
const MULTI: usize = 50;
const DEPTH: usize = 25;

/// The servers behind the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// Four primaries, no copies.
    Plain,
    /// Two primaries and two backups, each key on one of each. Servers that take explicit versions.
    Copies,
    /// The same with servers that do not.
    CopiesOld,
}

impl Setup {
    fn name(self) -> &'static str {
        match self {
            Setup::Plain => "plain",
            Setup::Copies => "copies",
            Setup::CopiesOld => "copies-old",
        }
    }

    /// The version of the servers.
    pub fn version(self) -> [u32; 3] {
        match self {
            Setup::Plain | Setup::CopiesOld => [1, 6, 18],
            Setup::Copies => [1, 6, 45],
        }
    }

    /// The servers on magent's command line.
    pub fn options(self) -> &'static str {
        match self {
            Setup::Plain => "-s a -s b -s c -s d",
            Setup::Copies | Setup::CopiesOld => "-s a -s b -b c -b d --copies 1",
        }
    }

    /// How many servers that are.
    pub fn servers(self) -> usize {
        4
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// One key, one request in each read.
    Get,
    /// The same, many requests in each read.
    GetPipelined,
    /// Fifty keys.
    GetMulti,
    Gets,
    Set,
    Add,
    Delete,
    Incr,
    Touch,
    Mg,
    Ms,
    /// In frames.
    BinaryGet,
    BinarySet,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub setup: Setup,
    pub ask: Ask,
    /// Bytes of a value.
    pub size: usize,
}

/// All cases, in the order of the table.
pub fn all() -> Vec<Case> {
    let sized = [
        Ask::Get,
        Ask::Gets,
        Ask::Mg,
        Ask::Set,
        Ask::Add,
        Ask::Ms,
        Ask::BinaryGet,
        Ask::BinarySet,
        Ask::GetMulti,
    ];
    let small = [Ask::GetPipelined, Ask::Delete, Ask::Incr, Ask::Touch];
    let mut cases = Vec::new();
    for setup in [Setup::Plain, Setup::Copies, Setup::CopiesOld] {
        for ask in sized {
            cases.extend([100, 10_000].map(|size| Case { setup, ask, size }));
        }
        cases.extend(small.map(|ask| Case {
            setup,
            ask,
            size: 100,
        }));
    }
    cases
}

impl Case {
    /// As in the table: setup, what is asked, size.
    pub fn name(&self) -> String {
        let ask = match self.ask {
            Ask::Get => "get",
            Ask::GetPipelined => "get-depth-25",
            Ask::GetMulti => "get-50-keys",
            Ask::Gets => "gets",
            Ask::Set => "set",
            Ask::Add => "add",
            Ask::Delete => "delete",
            Ask::Incr => "incr",
            Ask::Touch => "touch",
            Ask::Mg => "mg",
            Ask::Ms => "ms",
            Ask::BinaryGet => "binary-get",
            Ask::BinarySet => "binary-set",
        };
        format!("{} {ask} {}", self.setup.name(), self.size)
    }

    /// Clients that ask in one turn.
    pub fn clients(&self) -> usize {
        match self.ask {
            Ask::GetMulti => CLIENTS_MULTI,
            Ask::GetPipelined => CLIENTS / 5,
            _ => CLIENTS,
        }
    }

    /// Requests of each in one turn.
    pub fn depth(&self) -> usize {
        match self.ask {
            Ask::GetPipelined => DEPTH,
            _ => 1,
        }
    }

    fn keys(&self) -> usize {
        CLIENTS * MULTI
    }

    /// What a client sends first to have there what is asked for.
    pub fn preload(&self) -> Vec<Vec<u8>> {
        if self.ask == Ask::Add {
            return Vec::new();
        }
        let keys = match self.ask {
            Ask::GetMulti => CLIENTS_MULTI * MULTI,
            Ask::GetPipelined => self.clients() * DEPTH,
            _ => CLIENTS,
        };
        (0..keys).map(|key| self.store("set", key)).collect()
    }

    fn store(&self, verb: &str, key: usize) -> Vec<u8> {
        let value = self.value();
        let length = value.len();
        let line = match verb {
            "ms" => format!("ms bench:{key:06} {length}\r\n"),
            _ => format!("{verb} bench:{key:06} 0 0 {length}\r\n"),
        };
        [line.as_bytes(), &value, b"\r\n"].concat()
    }

    fn value(&self) -> Vec<u8> {
        match self.ask {
            Ask::Incr => b"1000".to_vec(),
            _ => vec![b'x'; self.size],
        }
    }

    /// What the client at place `client` sends in a turn.
    pub fn request(&self, client: usize) -> Vec<u8> {
        let line = |text: String| text.into_bytes();
        match self.ask {
            Ask::Get => line(format!("get bench:{client:06}\r\n")),
            Ask::Gets => line(format!("gets bench:{client:06}\r\n")),
            Ask::Mg => line(format!("mg bench:{client:06} v\r\n")),
            Ask::Delete => line(format!("delete bench:{client:06}\r\n")),
            Ask::Incr => line(format!("incr bench:{client:06} 1\r\n")),
            Ask::Touch => line(format!("touch bench:{client:06} 100\r\n")),
            Ask::Set => self.store("set", client),
            Ask::Add => self.store("add", client),
            Ask::Ms => self.store("ms", client),
            Ask::BinaryGet => frame(0x00, b"", client, b""),
            Ask::BinarySet => frame(0x01, &[0; 8], client, &self.value()),
            Ask::GetMulti => {
                let mut text = "get".to_string();
                for i in 0..MULTI {
                    // Writing to a string cannot fail.
                    let _ = write!(text, " bench:{:06}", (client * MULTI + i) % self.keys());
                }
                line(text + "\r\n")
            }
            Ask::GetPipelined => {
                let keys = (0..DEPTH).map(|i| client * DEPTH + i);
                line(keys.map(|key| format!("get bench:{key:06}\r\n")).collect())
            }
        }
    }

    /// Whether it is asked in frames.
    pub fn is_binary(&self) -> bool {
        matches!(self.ask, Ask::BinaryGet | Ask::BinarySet)
    }

    /// Turns before the one that is recorded.
    pub fn rehearsals(&self) -> usize {
        match self.ask {
            Ask::Get | Ask::GetPipelined | Ask::GetMulti | Ask::Gets => 8,
            Ask::Mg | Ask::BinaryGet => 8,
            _ => 0,
        }
    }

    /// What the client must be told: how often which end of a reply.
    pub fn expected(&self) -> (&'static [u8], usize) {
        match self.ask {
            Ask::BinaryGet => (b"\x81\0\0\0\x04\0\0\0", 1),
            Ask::BinarySet => (b"\x81\x01\0\0\0\0\0\0", 1),
            Ask::Get | Ask::Gets => (b"END\r\n", 1),
            Ask::GetPipelined => (b"END\r\n", DEPTH),
            Ask::GetMulti => (b"VALUE ", MULTI),
            Ask::Set | Ask::Add => (b"STORED\r\n", 1),
            Ask::Delete => (b"DELETED\r\n", 1),
            Ask::Incr => (b"1001\r\n", 1),
            Ask::Touch => (b"TOUCHED\r\n", 1),
            Ask::Mg => (b"VA ", 1),
            Ask::Ms => (b"HD\r\n", 1),
        }
    }

    /// Bytes of values in one reply.
    pub fn value_bytes(&self) -> usize {
        match self.ask {
            Ask::Get | Ask::Gets | Ask::Mg | Ask::BinaryGet => self.size,
            Ask::GetPipelined => self.size * DEPTH,
            Ask::GetMulti => self.size * MULTI,
            _ => 0,
        }
    }
}

/// A frame of the binary protocol.
fn frame(opcode: u8, extras: &[u8], key: usize, value: &[u8]) -> Vec<u8> {
    let key = format!("bench:{key:06}").into_bytes();
    let body = extras.len() + key.len() + value.len();
    let mut out = vec![0x80, opcode];
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
    out.extend_from_slice(&(body as u32).to_be_bytes());
    out.extend_from_slice(&[0; 12]);
    for part in [extras, &key, value] {
        out.extend_from_slice(part);
    }
    out
}
