//! The application of the demo and the tests: a web server that behaves as its environment says.
//!
//! It is compiled by `build.rs` with plain `rustc` into one static binary that runs in an empty image, so it uses
//! nothing but the standard library.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `VERSION` | what `GET /` answers: `version <VERSION>` |
//! | `MODE` | `ok`; `broken`: says why and exits 3; `unhealthy`: `/healthz` answers 503; `slow-stop`: ignores SIGTERM; `crash-later`: exits 4 after `CRASH_AFTER_MS`; `hungry`: takes memory until it is killed |
//! | `PORT` | where it listens, 8080 if not set |
//! | `CRASH_AFTER_MS` | 2000 if not set |
//! | `HEALTHY_AFTER_MS` | so long after the start `/healthz` answers 503; 0 if not set |
//! | `LEAK` | name of a variable whose value a `broken` one prints before it exits, as careless programs do |
//!
//! `GET /env/<NAME>` answers the variable's value, `GET /read/<path>` a file's content; `GET /write/<path>` writes
//! `VERSION` into a file, and answers why if it cannot. `GET /stdout/<hexadecimal>` and `GET /stderr/<hexadecimal>` write
//! those bytes there. `app probe` asks the application in the same container for its health
//! and exits 0 or 1.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::exit,
    thread,
    time::{Duration, Instant},
};

const SIGTERM: i32 = 15;

// A process without a handler for SIGTERM ignores it when it is PID 1, and the standard library has no way to install
// one. These two are of libc, which a static binary contains anyway.
unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn _exit(code: i32) -> !;
}

extern "C" fn leave(_: i32) {
    // SAFETY: `_exit` may be called in a signal handler, and does not return.
    unsafe { _exit(0) }
}

fn main() {
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    if env::args().nth(1).as_deref() == Some("probe") {
        exit(i32::from(!healthy(&port)));
    }
    let version = env::var("VERSION").unwrap_or_else(|_| "unknown".to_owned());
    let mode = env::var("MODE").unwrap_or_else(|_| "ok".to_owned());
    eprintln!("demo: version={version} mode={mode} port={port}");
    let on_sigterm = if mode == "slow-stop" { 1 } else { leave as extern "C" fn(i32) as usize };
    // SAFETY: 1 is SIG_IGN, and `leave` calls nothing that a handler must not.
    unsafe { signal(SIGTERM, on_sigterm) };
    match mode.as_str() {
        "broken" => {
            let leaked = env::var("LEAK").ok().and_then(|name| env::var(name).ok());
            if let Some(value) = leaked {
                eprintln!("demo: connecting with {value}");
            }
            eprintln!("demo: fatal: cannot read the configuration");
            exit(3);
        }
        "crash-later" => {
            let after = millis("CRASH_AFTER_MS", 2000);
            thread::spawn(move || {
                thread::sleep(after);
                eprintln!("demo: fatal: lost the connection");
                exit(4);
            });
        }
        "hungry" => {
            thread::spawn(eat);
        }
        _ => {}
    }
    let started = Instant::now();
    let listener = match TcpListener::bind(format!("0.0.0.0:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("demo: fatal: cannot listen on port {port}: {error}");
            exit(5);
        }
    };
    let healthy_after = millis("HEALTHY_AFTER_MS", 0);
    for stream in listener.incoming().flatten() {
        let (version, mode) = (version.clone(), mode.clone());
        thread::spawn(move || {
            serve(&stream, |path| match path {
                "/healthz" if mode == "unhealthy" || started.elapsed() < healthy_after => {
                    (503, "unhealthy\n".to_owned())
                }
                "/healthz" => (200, "healthy\n".to_owned()),
                "/" => (200, format!("version {version}\n")),
                _ => asked(path, &version).unwrap_or((404, "not found\n".to_owned())),
            })
        });
    }
}

/// What a path asks of the environment or of the file system.
fn asked(path: &str, version: &str) -> Option<(u16, String)> {
    let told = |result: std::io::Result<String>| match result {
        Ok(text) => (200, text),
        Err(error) => (500, format!("{error}\n")),
    };
    if let Some(name) = path.strip_prefix("/env/") {
        return env::var(name).ok().map(|value| (200, value));
    }
    if let Some(hexadecimal) = path.strip_prefix("/stdout/") {
        return Some(told(print(hexadecimal, &mut std::io::stdout())));
    }
    if let Some(hexadecimal) = path.strip_prefix("/stderr/") {
        return Some(told(print(hexadecimal, &mut std::io::stderr())));
    }
    if let Some(file) = path.strip_prefix("/read") {
        return Some(told(fs::read_to_string(file)));
    }
    let file = path.strip_prefix("/write")?;
    Some(told(fs::write(file, version).map(|()| "written\n".to_owned())))
}

fn print(hexadecimal: &str, to: &mut impl Write) -> std::io::Result<String> {
    let digits = hexadecimal.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    let bytes: Result<Vec<u8>, _> = digits.map(|pair| u8::from_str_radix(pair, 16)).collect();
    to.write_all(&bytes.map_err(std::io::Error::other)?)?;
    to.flush()?;
    Ok("printed\n".to_owned())
}

/// Slowly enough to be seen healthy first, and not for ever if nobody stops it.
fn eat() {
    let mut eaten = Vec::new();
    for _ in 0..512 {
        eaten.push(vec![1_u8; 1 << 20]);
        thread::sleep(Duration::from_millis(2));
    }
    eprintln!("demo: fatal: ate {} MiB, and nothing stopped it", eaten.len());
    exit(6);
}

fn millis(name: &str, default: u64) -> Duration {
    Duration::from_millis(env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default))
}

/// Answers the requests of one connection, which may be several.
fn serve(mut stream: &TcpStream, answer: impl Fn(&str) -> (u16, String)) {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let Some(Ok(request)) = lines.next() else { return };
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let mut words = request.split(' ');
        let (Some(_method), Some(path)) = (words.next(), words.next()) else { return };
        let (status, body) = answer(path);
        let head = format!("HTTP/1.1 {status} .\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).is_err() || request.ends_with("HTTP/1.0") {
            return;
        }
    }
}

fn healthy(port: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
