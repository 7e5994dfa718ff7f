//! The socket's other end: what `wharf admin`, `wharf backup` and `wharf storage` use.
//!
//! Blocking and small: one request, one answer, the end. Answers come from a process of the same user, but are still
//! bounded.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Command, Refusal, Reply};

/// Longest answer: a check lists its findings.
const LARGEST: u64 = 16 << 20;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens: the registry is stopped.
    #[error("no registry runs on this data folder")]
    Stopped,
    /// The registry belongs to somebody else.
    #[error("{} belongs to another user; run this command as that user (sudo -u)", path.display())]
    NotYours {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the running registry did not answer: {0}")]
    Broken(String),
    /// It answered, and did not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Sends a command to the registry that runs on this data folder, and waits for the reply, however long that takes.
pub fn call(folder: &Path, command: &Command) -> Result<Reply, CallError> {
    let broken = |error: std::io::Error| CallError::Broken(error.to_string());
    let (path, _open) = super::socket(folder).map_err(|error| failed(&error, folder))?;
    let mut stream =
        UnixStream::connect(&path).map_err(|error| failed(&error, &folder.join(super::SOCKET)))?;
    let body = serde_json::to_vec(command).map_err(|error| CallError::Broken(error.to_string()))?;
    let head = format!(
        "POST /admin/{} HTTP/1.1\r\nHost: wharf\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        command.name(),
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body))
        .map_err(broken)?;
    let mut answer = Vec::new();
    stream
        .take(LARGEST)
        .read_to_end(&mut answer)
        .map_err(broken)?;
    read(&answer)
}

impl CallError {
    /// What it means that the socket of this folder could not be reached, or did not answer.
    pub fn new(error: &std::io::Error, folder: &Path) -> Self {
        failed(error, &folder.join(super::SOCKET))
    }
}

fn failed(error: &std::io::Error, path: &Path) -> CallError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => CallError::Stopped,
        ErrorKind::PermissionDenied => CallError::NotYours {
            path: path.to_owned(),
        },
        _ => CallError::Broken(error.to_string()),
    }
}

/// Reads a whole answer. The server closes after it, and full bodies are never chunked.
fn read(answer: &[u8]) -> Result<Reply, CallError> {
    let broken =
        || CallError::Broken("it ended in the middle of its answer; see its log".to_owned());
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(broken)?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let head = std::str::from_utf8(head).map_err(|_| broken())?;
    let status = head.split(' ').nth(1).ok_or_else(broken)?;
    if status == "200" {
        return serde_json::from_slice(body).map_err(|_| broken());
    }
    let error: serde_json::Value = serde_json::from_slice(body).map_err(|_| broken())?;
    let text = error["error"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(broken)?;
    Err(CallError::Refused(if status == "400" {
        Refusal::Wrong(text)
    } else {
        Refusal::Failed(text)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_torn_ones_refused() {
        let answer = |text: &str| read(text.as_bytes());
        let ok = answer(
            "HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n{\"status\":{\"process\":7,\"version\":\"0.1.0\"}}",
        );
        assert_eq!(
            ok.unwrap(),
            Reply::Status {
                process: 7,
                version: "0.1.0".into(),
                health: None,
            }
        );
        let wrong =
            answer("HTTP/1.1 400 Bad Request\r\n\r\n{\"error\":\"too short\"}").unwrap_err();
        assert!(matches!(wrong, CallError::Refused(Refusal::Wrong(text)) if text == "too short"));
        let failed = answer("HTTP/1.1 500 Oh\r\n\r\n{\"error\":\"disk\"}").unwrap_err();
        assert!(matches!(failed, CallError::Refused(Refusal::Failed(text)) if text == "disk"));
        for torn in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{\"status\":{",
            "x\r\n\r\n",
            "HTTP/1.1 500 \r\n\r\n{}",
        ] {
            assert!(matches!(answer(torn), Err(CallError::Broken(_))), "{torn}");
        }
    }

    #[test]
    fn a_folder_without_a_registry_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            call(folder.path(), &Command::Status),
            Err(CallError::Stopped)
        ));
        // A socket that a crash left behind.
        drop(
            std::os::unix::net::UnixListener::bind(folder.path().join(crate::admin::SOCKET))
                .unwrap(),
        );
        assert!(matches!(
            call(folder.path(), &Command::Status),
            Err(CallError::Stopped)
        ));
    }
}
