//! The way to a mail server, with an end: so many bytes and so long, whatever the server does.
//!
//! The library that speaks SMTP reads a line until it ends, and waits anew for each piece of it: a server that never
//! ends its line would fill the memory, and one that says a byte now and then would never be done. It cannot be handed
//! a connection, so it talks to a port of this machine, behind which this counts. TLS is between the library and the
//! server, whose name it knows: nothing can be read or changed here.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server has this much to say, in bytes: certificates, and a line for each command.
const MOST: u64 = 1 << 20;
/// So much is passed on at a time, in bytes.
const PIECE: usize = 16 * 1024;

/// Leads one connection to a server, as long as the value lives.
pub(super) struct Relay {
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Connects to the server, within `step` for each of its addresses; what is said must be over after `whole`.
    pub fn to(server: &str, port: u16, step: Duration, whole: Duration) -> io::Result<Relay> {
        let far = connect(server, port, step)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let until = Instant::now() + whole;
        let lead = move || {
            let Ok((near, _)) = listener.accept() else { return };
            // There is one connection, and no other one.
            drop(listener);
            // If it cannot be led, both ends close, and whoever waits there hears so.
            let _ = join(&near, &far, until);
        };
        let thread = std::thread::Builder::new().name("mail".to_owned()).spawn(lead)?;
        Ok(Relay { port, thread: Some(thread) })
    }

    /// The port of 127.0.0.1 that leads there, once.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // If nobody came, this ends the wait.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn connect(server: &str, port: u16, step: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (server, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, step) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Passes on what either says, until one has ended, or said too much, or time is up.
fn join(near: &TcpStream, far: &TcpStream, until: Instant) -> io::Result<()> {
    std::thread::scope(|scope| {
        std::thread::Builder::new().name("mail".to_owned()).spawn_scoped(scope, || pass(near, far, u64::MAX, until))?;
        pass(far, near, MOST, until);
        Ok(())
    })
}

/// Passes on what one says, and then closes both: that ends the other direction too.
fn pass(mut from: &TcpStream, mut to: &TcpStream, most: u64, until: Instant) {
    let mut left = most;
    let mut piece = vec![0; PIECE];
    loop {
        let time = until.saturating_duration_since(Instant::now());
        if time.is_zero() || from.set_read_timeout(Some(time)).and(to.set_write_timeout(Some(time))).is_err() {
            break;
        }
        let got = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let Some(rest) = left.checked_sub(got as u64) else { break };
        left = rest;
        if to.write_all(&piece[..got]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        // It may be closed already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that does this with its first connection; and the way to it.
    fn relay(whole: Duration, serve: impl FnOnce(TcpStream) + Send + 'static) -> (Relay, JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let server = std::thread::spawn(move || serve(listener.accept().expect("somebody").0));
        (Relay::to("127.0.0.1", port, Duration::from_secs(5), whole).expect("connected"), server)
    }

    fn come(relay: &Relay) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).expect("connected")
    }

    #[test]
    fn both_ways_and_once() {
        let (relay, server) = relay(Duration::from_secs(30), |mut stream| {
            let mut said = [0; 5];
            stream.read_exact(&mut said).expect("read");
            stream.write_all(&said).expect("written");
        });
        let mut near = come(&relay);
        near.write_all(b"hello").expect("written");
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).expect("read");
        assert_eq!(heard, b"hello");
        server.join().expect("ended");
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).is_err());
    }

    #[test]
    fn a_line_that_never_ends_is_cut() {
        let (relay, server) =
            relay(Duration::from_mins(1), |mut stream| while stream.write_all(&[b'x'; 9999]).is_ok() {});
        let mut heard = 0;
        let mut piece = vec![0; PIECE];
        let mut near = come(&relay);
        while let Ok(got @ 1..) = near.read(&mut piece) {
            heard += got as u64;
        }
        assert!((1..=MOST).contains(&heard), "{heard}");
        server.join().expect("ended");
    }

    #[test]
    fn a_byte_now_and_then_ends_too() {
        let start = Instant::now();
        let (relay, server) = relay(Duration::from_secs(1), |mut stream| {
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let mut heard = Vec::new();
        let _ = come(&relay).read_to_end(&mut heard);
        assert!(!heard.is_empty() && start.elapsed() < Duration::from_secs(20));
        server.join().expect("ended");
    }

    #[test]
    fn nobody_comes() {
        let (relay, server) = relay(Duration::from_secs(30), |mut stream| drop(stream.read(&mut [0])));
        drop(relay);
        server.join().expect("ended");
    }
}
