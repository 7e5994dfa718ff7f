//! The command's end of the admin socket. Blocking and by hand: one request, one answer, then the end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Command, Outcome, address};
use crate::http::listener::ListenAddr;

/// Sends a command to the registry that runs on `folder`. `None`: none is running there.
pub fn ask(folder: &Path, command: &Command) -> Option<Result<Outcome, String>> {
    let ListenAddr::Unix { path, .. } = address(folder) else {
        return None;
    };
    let stream = UnixStream::connect(&path).ok()?;
    Some(talk(stream, command).unwrap_or_else(|error| {
        Err(format!(
            "the running registry did not answer on {}: {error}",
            path.display()
        ))
    }))
}

fn talk(mut stream: UnixStream, command: &Command) -> io::Result<Result<Outcome, String>> {
    let body = serde_json::to_vec(command)?;
    let head = format!(
        "POST /admin HTTP/1.1\r\nHost: wharf\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    read(&answer).ok_or_else(|| io::Error::other("the answer cannot be read"))
}

/// Status and body of an answer that ends with its connection. Answers are never chunked: all are whole in memory.
fn read(answer: &[u8]) -> Option<Result<Outcome, String>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (answer.get(..end)?, answer.get(end + 4..)?);
    let status = std::str::from_utf8(head).ok()?.split(' ').nth(1)?;
    Some(match status {
        "200" => Ok(serde_json::from_slice(body).ok()?),
        _ => Err(String::from_utf8_lossy(body).trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let good = read(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"lines\":[\"a\"],\"sound\":true}");
        assert_eq!(good.unwrap().unwrap().lines, ["a"]);
        let bad = read(b"HTTP/1.1 500 Oops\r\n\r\nno room\n");
        assert_eq!(bad.unwrap().unwrap_err(), "no room");
        assert!(read(b"nonsense").is_none());
    }
}
