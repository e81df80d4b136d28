//! A fake of Google Drive v3 and of Google's authorization, for tests: real HTTP on a port of its own, a memory of
//! what was done, and on order everything that goes wrong in the world.
//!
//! What is here answers as Drive does as far as a backup can tell. What a client must not rely upon is refused or
//! made to vary. Requests are known by their kind, in `counts` and wherever a fault or a harm is ordered: `files.list`,
//! `files.create`, `files.get`, `files.media`, `files.update`, `files.delete`, `files.generateIds`, `about`,
//! `upload.start`, `upload.put`, `upload.query`, `upload.cancel`, `token` (and finer `token.code`, `token.refresh`,
//! `token.device`, `token.other`), `device.code`, `revoke`, `auth`, `other`. `with.bearer` counts all requests that
//! showed a token.
#![allow(dead_code, unused_imports, reason = "each test uses its own part of this")]

mod clock;
mod control;
mod faults;
mod files;
mod hostile;
mod line;
mod oauth;
mod query;
mod reply;
mod request;
mod serve;
mod state;
mod upload;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use serve::Common;
use state::State;

pub use control::SessionView;
pub use faults::{Drawn, Fault};
pub use hostile::Hostile;
pub use oauth::{CLIENT_ID, CLIENT_SECRET, DeviceEnd, SCOPE};
pub use state::{FOLDER, PART, ROOT, StoredFile};

/// A running server. It stops when this is dropped.
pub struct FakeDrive {
    common: Arc<Common>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDrive {
    /// Starts a server on a free port of 127.0.0.1, in a thread of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        listener.set_nonblocking(true).expect("a listener that does not block");
        let common = Arc::new(Common {
            state: Mutex::new(State::new()),
            base: format!("http://127.0.0.1:{port}"),
            bytes_out: Arc::new(AtomicU64::new(0)),
        });
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&common);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve::run(listener, served, stopped));
        });
        Self { common, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`, under which all paths of all of Google's hosts are.
    pub fn base(&self) -> String {
        self.common.base.clone()
    }
}

impl Drop for FakeDrive {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has stopped already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
