//! A mail server that remembers what it was told: RFC 5321 as far as one message goes, STARTTLS and AUTH included.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::tls;

/// How it behaves.
#[derive(Clone, Default)]
pub struct Manner {
    /// What it offers beside the usual.
    pub offers: Vec<&'static str>,
    /// TLS from the start.
    pub tls: bool,
    /// Once each: how it answers the command that begins so.
    pub answers: Vec<(&'static str, &'static str)>,
    /// It sends one byte now and then, for ever.
    pub drips: bool,
}

/// One connection.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Lines of commands, and whether they came under TLS.
    pub commands: Vec<(bool, String)>,
    /// What was handed over, without the dots of the protocol.
    pub data: Option<String>,
}

impl Session {
    pub fn has(&self, command: &str) -> bool {
        self.commands.iter().any(|(_, line)| line.starts_with(command))
    }

    pub fn lines(&self) -> Vec<&str> {
        self.commands.iter().map(|(_, line)| line.as_str()).collect()
    }

    /// The header lines, unfolded, and the body.
    pub fn mail(&self) -> (Vec<String>, String) {
        let data = self.data.as_deref().expect("a mail");
        let (head, body) = data.split_once("\r\n\r\n").expect("a head and a body");
        (head.replace("\r\n ", " ").split("\r\n").map(str::to_owned).collect(), body.to_owned())
    }
}

pub struct Server {
    pub port: u16,
    sessions: Arc<Mutex<Vec<Session>>>,
}

/// Changes what is remembered of a connection.
type Note<'a> = dyn Fn(&dyn Fn(&mut Session)) + 'a;

trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

impl Server {
    pub fn start(manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let sessions: Arc<Mutex<Vec<Session>>> = Arc::default();
        let (shared, answers) = (sessions.clone(), Arc::new(Mutex::new(manner.answers.clone())));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (manner, sessions, answers) = (manner.clone(), shared.clone(), answers.clone());
                std::thread::spawn(move || {
                    let at = {
                        let mut sessions = sessions.lock().expect("unpoisoned");
                        sessions.push(Session::default());
                        sessions.len() - 1
                    };
                    let note = |change: &dyn Fn(&mut Session)| change(&mut sessions.lock().expect("unpoisoned")[at]);
                    // A client that hangs up is what some tests are about.
                    let _ = talk(stream.expect("a connection"), &manner, &answers, &note);
                });
            }
        });
        Server { port, sessions }
    }

    pub fn sessions(&self) -> Vec<Session> {
        self.sessions.lock().expect("unpoisoned").clone()
    }
}

fn talk(
    stream: TcpStream,
    manner: &Manner,
    answers: &Mutex<Vec<(&'static str, &'static str)>>,
    note: &Note<'_>,
) -> std::io::Result<()> {
    let raw = stream.try_clone()?;
    let mut covered = manner.tls;
    let line: Box<dyn Line> = if covered { Box::new(tls::cover(stream)) } else { Box::new(stream) };
    let mut line = BufReader::new(line);
    let say = |line: &mut BufReader<Box<dyn Line>>, text: &str| {
        line.get_mut().write_all(format!("{text}\r\n").as_bytes())?;
        line.get_mut().flush()
    };
    if manner.drips {
        loop {
            line.get_mut().write_all(b"220-x\r\n")?;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    say(&mut line, "220 loopback")?;
    let mut command = String::new();
    loop {
        command.clear();
        if line.read_line(&mut command)? == 0 {
            return Ok(());
        }
        let text = command.trim_end().to_owned();
        note(&|session| session.commands.push((covered, text.clone())));
        let ordered = {
            let mut answers = answers.lock().expect("unpoisoned");
            let found = answers.iter().position(|(begins, _)| text.starts_with(begins));
            found.map(|at| answers.remove(at).1)
        };
        if let Some(answer) = ordered {
            say(&mut line, answer)?;
            continue;
        }
        match text.split(' ').next().unwrap_or("") {
            "EHLO" => {
                let offers = manner.offers.iter().filter(|offer| !covered || **offer != "STARTTLS");
                say(&mut line, "250-loopback")?;
                for offer in offers {
                    say(&mut line, &format!("250-{offer}"))?;
                }
                say(&mut line, "250 8BITMIME")?;
            }
            "STARTTLS" => {
                say(&mut line, "220 go on")?;
                covered = true;
                line = BufReader::new(Box::new(tls::cover(raw.try_clone()?)));
            }
            "AUTH" => say(&mut line, "235 welcome")?,
            "DATA" => {
                say(&mut line, "354 go on")?;
                let mut data = String::new();
                while !data.ends_with("\r\n.\r\n") {
                    if line.read_line(&mut data)? == 0 {
                        return Ok(());
                    }
                }
                let data = data.trim_end_matches(".\r\n").replace("\r\n..", "\r\n.");
                note(&|session| session.data = Some(data.clone()));
                say(&mut line, "250 taken")?;
            }
            "QUIT" => return say(&mut line, "221 bye"),
            _ => say(&mut line, "250 fine")?,
        }
    }
}
