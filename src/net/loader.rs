//! Reads the file of the pools, and resolves the names in it, in a thread of its own, so the loop never waits.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread;

use mio::Waker;

use crate::config::Config;
use crate::pools::{self, Failure, Plan};

/// What the file says now, or what is wrong with it.
pub(super) type Loaded = Result<Vec<Plan>, Failure>;

/// Reads the file when it is told to.
pub(super) struct Loader {
    /// What the command line says; its file is absolute.
    process: Config,
    sender: Sender<Loaded>,
    loaded: Receiver<Loaded>,
    waker: Arc<Waker>,
    busy: bool,
    /// It was told again meanwhile.
    again: bool,
}

impl Loader {
    /// Nothing is read yet. The waker fires each time that something has been.
    pub fn new(process: Config, waker: Arc<Waker>) -> Loader {
        let (sender, loaded) = mpsc::channel();
        Loader {
            process,
            sender,
            loaded,
            waker,
            busy: false,
            again: false,
        }
    }

    /// Whether there is a file.
    pub fn has_file(&self) -> bool {
        self.process.file.is_some()
    }

    /// Wakes the loop.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// Begins to read, unless that is under way: then it is done once more.
    pub fn begin(&mut self) {
        if self.busy {
            self.again = true;
            return;
        }
        let process = self.process.clone();
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let spawned = thread::Builder::new()
            .name("magent-reload".into())
            .spawn(move || {
                let planned = pools::read(&process);
                let planned = planned.and_then(|read| pools::plan(read).map_err(Failure::System));
                // When the loop is gone, so is the process.
                let _ = sender.send(planned);
                let _ = waker.wake();
            });
        match spawned {
            Ok(_) => self.busy = true,
            Err(error) => log::error!("the configuration cannot be read again: {error}"),
        }
    }

    /// What has been read, unless it is to be read once more: then that begins.
    pub fn take(&mut self) -> Option<Loaded> {
        while let Ok(loaded) = self.loaded.try_recv() {
            self.busy = false;
            if !std::mem::take(&mut self.again) {
                return Some(loaded);
            }
            self.begin();
        }
        None
    }
}
