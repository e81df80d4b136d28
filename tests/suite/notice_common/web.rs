//! A web server that remembers what it was asked, and answers as it was told to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use axum::serve::Listener;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    Status(u16),
    /// With a header line.
    With(u16, &'static str, String),
    Hang,
}

#[derive(Default)]
struct Memory {
    seen: Mutex<Vec<Seen>>,
    answers: Mutex<VecDeque<Answer>>,
    breaks: AtomicUsize,
}

pub struct Server {
    memory: Arc<Memory>,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
}

/// Hangs up on the first ones.
struct Breaking(TcpListener, Arc<Memory>);

impl Listener for Breaking {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let Ok(accepted) = self.0.accept().await else { continue };
            let less = |left: usize| left.checked_sub(1);
            if self.1.breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err() {
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn answer(State(memory): State<Arc<Memory>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: to_bytes(body, 1 << 20).await.expect("a body").to_vec(),
    };
    memory.seen.lock().expect("unpoisoned").push(seen);
    let next = memory.answers.lock().expect("unpoisoned").pop_front();
    let response = match next.unwrap_or(Answer::Status(200)) {
        Answer::Status(status) => Response::builder().status(status),
        Answer::With(status, name, value) => Response::builder().status(status).header(name, value),
        Answer::Hang => {
            tokio::time::sleep(Duration::from_mins(5)).await;
            Response::builder()
        }
    };
    response.body(Body::from("never repeat this")).expect("an answer")
}

impl Server {
    /// Answers so in turn, and with 200 after that.
    pub fn start(answers: &[Answer]) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("set");
        let port = listener.local_addr().expect("bound").port();
        let memory = Arc::new(Memory { answers: Mutex::new(answers.iter().cloned().collect()), ..Memory::default() });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = memory.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = Breaking(TcpListener::from_std(listener).expect("a listener"), served.clone());
                let router = Router::new().fallback(answer).with_state(served);
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
        });
        Server { memory, port, stop: Some(stop) }
    }

    pub fn statuses(statuses: &[u16]) -> Server {
        Server::start(&statuses.iter().map(|status| Answer::Status(*status)).collect::<Vec<_>>())
    }

    /// Hangs up on so many connections, and then answers.
    pub fn breaking(connections: usize) -> Server {
        let server = Server::start(&[]);
        server.memory.breaks.store(connections, Ordering::SeqCst);
        server
    }

    pub fn breaks_left(&self) -> usize {
        self.memory.breaks.load(Ordering::SeqCst)
    }

    pub fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.memory.seen.lock().expect("unpoisoned").clone()
    }

    /// The only thing that was asked.
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has stopped already.
        let _ = self.stop.take().map(|stop| stop.send(()));
    }
}
