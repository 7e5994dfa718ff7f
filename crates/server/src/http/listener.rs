//! Where connections come in: TCP addresses and Unix sockets.
//!
//! All of them are bound before the first is served, so a start fails as a whole and says what to do. Bound sockets are
//! handed to [`super::Server::start`].

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::io::Wire;

/// Connections that the kernel holds for us between two accepts. It takes what its own `somaxconn` allows: a cluster that
/// comes back all at once should not have to knock twice.
const BACKLOG: u32 = 65_535;

/// An address to listen on: `127.0.0.1:5000`, `[::]:5000`, `:5000`, `localhost:5000`, `unix:/run/wharf.sock`,
/// `unix:/run/wharf.sock?mode=660`. Port 0 lets the kernel choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// A host, by address or name, and a port. An empty host is every address of both families.
    Tcp {
        /// Without brackets.
        host: String,
        /// 0: any.
        port: u16,
    },
    /// A socket in the file system.
    Unix {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A text that is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address to listen on: {reason}; \
     write <host>:<port>, [<IPv6>]:<port>, :<port> or unix:<path>[?mode=660]"
)]
pub struct ListenAddrError {
    text: String,
    reason: &'static str,
}

impl ListenAddrError {
    /// What is wrong, without the text itself.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, ListenAddrError> {
        let bad = |reason| ListenAddrError {
            text: text.to_owned(),
            reason,
        };
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, mode) = match rest.rsplit_once("?mode=") {
                None => (rest, 0o660),
                Some((path, mode)) => {
                    let mode = u32::from_str_radix(mode, 8).ok();
                    let mode = mode.filter(|mode| *mode <= 0o777);
                    (path, mode.ok_or_else(|| bad("the mode is not octal"))?)
                }
            };
            if path.is_empty() {
                return Err(bad("the path is empty"));
            }
            return Ok(Self::Unix {
                path: path.into(),
                mode,
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("it has no port"))?;
        let port = port
            .parse()
            .map_err(|_| bad("the port is no number up to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner
                    .strip_suffix(']')
                    .ok_or_else(|| bad("the bracket is not closed"))?;
                inner
                    .parse::<Ipv6Addr>()
                    .map_err(|_| bad("what stands in brackets is no IPv6 address"))?;
                inner
            }
            None if host.contains(':') => return Err(bad("an IPv6 address needs brackets")),
            None if host == "*" => "",
            None => host,
        };
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path, mode } => write!(f, "unix:{}?mode={mode:o}", path.display()),
        }
    }
}

impl ListenAddr {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, .. } => match host.parse::<IpAddr>() {
                Ok(ip) => ip.is_loopback(),
                Err(_) => host == "localhost",
            },
        }
    }
}

/// Why an address cannot be listened on, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {reason}")]
pub struct BindError {
    addr: String,
    reason: String,
}

/// An address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddr {
    /// With the port that the kernel chose, if it did.
    Tcp(SocketAddr),
    /// The socket's path.
    Unix(PathBuf),
}

impl BoundAddr {
    /// The address, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for BoundAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Bound sockets that nobody accepts from yet.
#[derive(Debug)]
pub struct Listeners {
    /// Each with the address as it was given.
    pub(super) list: Vec<(ListenAddr, Listener)>,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listeners {
    /// Binds all, or none. Must be called within the runtime that will serve them.
    pub fn bind(addrs: &[ListenAddr]) -> Result<Self, BindError> {
        let mut list = Vec::with_capacity(addrs.len());
        let mut bound: Vec<SocketAddr> = Vec::new();
        for addr in addrs {
            match addr {
                ListenAddr::Unix { path, mode } => {
                    let (listener, file) = bind_unix(path, *mode).map_err(|reason| BindError {
                        addr: addr.to_string(),
                        reason,
                    })?;
                    list.push((addr.clone(), Listener::Unix(listener, file)));
                }
                ListenAddr::Tcp { host, port } => {
                    let listeners = bind_name(host, *port, &bound)?;
                    bound.extend(listeners.iter().filter_map(|tcp| tcp.local_addr().ok()));
                    let listeners = listeners.into_iter().map(Listener::Tcp);
                    list.extend(listeners.map(|listener| (addr.clone(), listener)));
                }
            }
        }
        Ok(Self { list })
    }

    /// What is listened on, in the order of the list; a name may have become several addresses.
    pub fn addrs(&self) -> Vec<BoundAddr> {
        self.list
            .iter()
            .filter_map(|(_, listener)| listener.addr())
            .collect()
    }
}

impl Listener {
    pub(super) fn addr(&self) -> Option<BoundAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(BoundAddr::Tcp),
            Self::Unix(_, file) => Some(BoundAddr::Unix(file.path.clone())),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Wire, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                // Answers are written whole; waiting to fill a packet would only delay their ends.
                stream.set_nodelay(true)?;
                Ok((Wire::Tcp(stream), Some(addr)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Wire::Unix(stream), None))
            }
        }
    }

    /// What waits to be accepted at this moment; then it is closed. The kernel is asked itself, since the runtime may not have
    /// heard of the last ones yet.
    pub(super) fn rest(self) -> Vec<(Wire, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => match listener.into_std() {
                Ok(listener) => waiting(|| {
                    let (stream, addr) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    Ok((Wire::Tcp(TcpStream::from_std(stream)?), Some(addr)))
                }),
                Err(_) => Vec::new(),
            },
            // Its file goes with it.
            Self::Unix(listener, _file) => match listener.into_std() {
                Ok(listener) => waiting(|| {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok((Wire::Unix(UnixStream::from_std(stream)?), None))
                }),
                Err(_) => Vec::new(),
            },
        }
    }
}

/// All that there is without waiting, and no more than can wait.
fn waiting<T>(mut accept: impl FnMut() -> io::Result<T>) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..BACKLOG {
        match accept() {
            Ok(one) => all.push(one),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Of one that went away again.
            Err(_) => {}
        }
    }
    all
}

fn bind_name(host: &str, port: u16, bound: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let error = |addr: String, reason: String| BindError { addr, reason };
    if host.is_empty() {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        // Without IPv6 in the kernel, IPv4 is all there is.
        return bind_tcp(any, bound)
            .or_else(|_| bind_tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), bound))
            .map(|listener| vec![listener])
            .map_err(|source| error(format!(":{port}"), tcp_reason(&source, port)));
    }
    let mut found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|source| {
            error(
                format!("{host}:{port}"),
                format!("the name does not resolve ({source}); write an IP address"),
            )
        })?
        .collect();
    found.sort_unstable();
    found.dedup();
    let mut listeners = Vec::new();
    let mut first_error = None;
    for addr in found {
        match bind_tcp(addr, bound) {
            Ok(listener) => listeners.push(listener),
            Err(source) => {
                let missing = source.kind() == io::ErrorKind::AddrNotAvailable;
                let error = error(addr.to_string(), tcp_reason(&source, port));
                // `localhost` has an IPv6 address also where the kernel has no IPv6.
                if !missing {
                    return Err(error);
                }
                first_error.get_or_insert(error);
            }
        }
        // Every address would get a port of its own.
        if port == 0 && !listeners.is_empty() {
            break;
        }
    }
    match (listeners.is_empty(), first_error) {
        (false, _) => Ok(listeners),
        (true, Some(error)) => Err(error),
        (true, None) => Err(error(
            format!("{host}:{port}"),
            "the name has no address".into(),
        )),
    }
}

fn bind_tcp(addr: SocketAddr, bound: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            // `[::]` serves IPv4 as well, whatever the system's default, unless IPv4 was given its own.
            let own_v4 = bound
                .iter()
                .any(|other| other.is_ipv4() && other.port() == addr.port());
            let dual = addr.ip().is_unspecified() && !own_v4;
            rustix::net::sockopt::set_ipv6_v6only(&socket, !dual)?;
            socket
        }
    };
    // Without it a restart would have to wait for the last connections' TIME_WAIT to end.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn tcp_reason(source: &io::Error, port: u16) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process listens there ('ss -ltnp sport = :{port}' names it); \
             stop it, or choose another address with --listen (server.listen)"
        ),
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "ports below 1024 need a privilege; choose a higher one with --listen \
             (server.listen), or grant CAP_NET_BIND_SERVICE ({source})"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; write an address from 'ip address', \
             or :<port> for all of them (--listen, server.listen)"
                .to_owned()
        }
        _ => format!("{source}; choose another address with --listen (server.listen)"),
    }
}

/// Removes the socket's file when the listener goes, if it is still the same one.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Binds beside the path and moves the socket there with its mode set, so that nobody sees it with another one. What
/// lies at the path is replaced only if it is a socket that nobody answers on.
fn bind_unix(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), String> {
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err("a file that is no socket lies there; move it away".to_owned());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(
                "another process listens there; stop it, or choose another path".to_owned(),
            );
        }
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(name);
    let _ = std::fs::remove_file(&new);
    let result = (|| {
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
        std::fs::rename(&new, path)?;
        let file = SocketFile {
            path: path.to_owned(),
            inode: inode(path)?,
        };
        Ok((listener, file))
    })();
    result.map_err(|source: io::Error| {
        let _ = std::fs::remove_file(&new);
        match source.kind() {
            io::ErrorKind::NotFound => "its folder does not exist; create it".to_owned(),
            io::ErrorKind::PermissionDenied => {
                format!("its folder is not writable for this user ({source})")
            }
            io::ErrorKind::InvalidInput => {
                format!(
                    "the path is too long for a socket, at most about 100 characters ({source})"
                )
            }
            _ => source.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ListenAddr {
        text.parse().unwrap()
    }

    fn tcp(host: &str, port: u16) -> ListenAddr {
        ListenAddr::Tcp {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn addresses_parse_and_print() {
        assert_eq!(parse("127.0.0.1:5000"), tcp("127.0.0.1", 5000));
        assert_eq!(parse("[::1]:0"), tcp("::1", 0));
        assert_eq!(parse(":80"), tcp("", 80));
        assert_eq!(parse("*:80"), tcp("", 80));
        assert_eq!(parse("localhost:80"), tcp("localhost", 80));
        let unix = |path: &str, mode| ListenAddr::Unix {
            path: path.into(),
            mode,
        };
        assert_eq!(parse("unix:/a/b"), unix("/a/b", 0o660));
        assert_eq!(parse("unix:/a/b?mode=600"), unix("/a/b", 0o600));
        for text in ["127.0.0.1:1", "[::1]:1", ":1", "unix:/a?mode=666"] {
            assert_eq!(parse(text).to_string(), text);
        }
        for bad in [
            "",
            "5000",
            "::1:5000",
            "[::1:5000",
            "[a]:1",
            "a:70000",
            "unix:",
            "unix:/a?mode=9",
        ] {
            assert!(bad.parse::<ListenAddr>().is_err(), "{bad}");
        }
        assert!(parse("127.0.0.1:1").is_local() && parse("unix:/a").is_local());
        assert!(parse("[::1]:1").is_local() && parse("localhost:1").is_local());
        assert!(!parse(":1").is_local() && !parse("192.0.2.1:1").is_local());
    }

    #[tokio::test]
    async fn errors_name_the_address_and_the_cure() {
        let first = Listeners::bind(&[tcp("127.0.0.1", 0)]).unwrap();
        let taken = first.addrs()[0].tcp().unwrap();
        let error = Listeners::bind(&[taken.to_string().parse().unwrap()]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&taken.to_string()) && text.contains("--listen"),
            "{text}"
        );
        let error = Listeners::bind(&[tcp("203.0.113.7", 0)])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("203.0.113.7") && error.contains("no such address"),
            "{error}"
        );
        let error = Listeners::bind(&[tcp("no-such-host.invalid", 1)])
            .unwrap_err()
            .to_string();
        assert!(error.contains("does not resolve"), "{error}");
    }

    #[tokio::test]
    async fn both_families_on_one_port() {
        let all = Listeners::bind(&[tcp("", 0)]).unwrap();
        let port = all.addrs()[0].tcp().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        drop(all);
        let both = [tcp("0.0.0.0", port), tcp("::", port)];
        assert_eq!(Listeners::bind(&both).unwrap().addrs().len(), 2);
    }

    #[tokio::test]
    async fn socket_files_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let addr = ListenAddr::Unix {
            path: path.clone(),
            mode: 0o600,
        };
        // Left behind by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listeners = Listeners::bind(std::slice::from_ref(&addr)).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        let error = Listeners::bind(std::slice::from_ref(&addr)).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(listeners);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        let error = Listeners::bind(&[addr]).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
