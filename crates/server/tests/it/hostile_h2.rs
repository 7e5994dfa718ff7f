//! The floods that HTTP/2 has names for, against the real server: each ends with its connection, or costs no more than that
//! connection may; service for others goes on. How single limits act is in `http_h2`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use crate::hostile_support::{MIB, Stage, Target, connections, scaled, until};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The frames of RFC 9113, by hand.
struct Frames {
    socket: TcpStream,
    next: u32,
}

impl Frames {
    /// A connection with these settings.
    fn open(stage: &Stage<'_>, settings: &[(u16, u32)]) -> Frames {
        let mut frames = Frames {
            socket: stage.connect(),
            next: 1,
        };
        frames.socket.set_nodelay(true).unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        frames.socket.write_all(preface).unwrap();
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        assert!(frames.send(SETTINGS, 0, 0, &payload));
        frames
    }

    /// False once the server does not listen any more.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).is_ok()
    }

    /// HEADERS on a new stream; gives its number, or nothing once the server does not listen any more. `method` is 2 for
    /// GET, 3 for POST in the static table.
    fn request(&mut self, method: u8, path: &str, flags: u8) -> Option<u32> {
        let stream = self.next;
        self.next += 2;
        // 6 is http; 4 and 1 are the names :path and :authority. Lengths below 127 are one byte.
        let mut block = vec![0x80 | method, 0x86, 0x04, path.len() as u8];
        assert!(path.len() < 127);
        block.extend(path.as_bytes());
        block.extend([0x01, 5]);
        block.extend(b"wharf");
        self.send(HEADERS, flags, stream, &block).then_some(stream)
    }

    /// The next frame's kind, flags, stream and payload; nothing when the server has closed.
    fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], stream, payload))
    }

    /// Whether a request gets an answer whose stream ends.
    fn is_served(&mut self) -> bool {
        let stream = self.request(2, "/v2/", END_STREAM | END_HEADERS);
        loop {
            match self.read() {
                Some((GOAWAY, ..)) | None => return false,
                Some((HEADERS | DATA, flags, answered, _))
                    if Some(answered) == stream && flags & END_STREAM != 0 =>
                {
                    return true;
                }
                Some(_) => {}
            }
        }
    }

    /// Whether the server ends the connection, by GOAWAY or at once.
    fn is_ended(&mut self) -> bool {
        loop {
            match self.read() {
                Some((GOAWAY, ..)) | None => return true,
                Some(_) => {}
            }
        }
    }
}

/// Runs the flood on one connection after another; each must be ended by the server before `most` frames were taken.
fn ended_early(stage: &Stage<'_>, most: usize, mut flood: impl FnMut(&mut Frames) -> bool) {
    stage.began();
    let mut cycles = 0;
    while !stage.measured() || cycles < scaled(3, 50) {
        cycles += 1;
        let mut frames = Frames::open(stage, &[]);
        let taken = (0..most).take_while(|_| flood(&mut frames)).count();
        assert!(taken < most, "{taken} frames were taken");
    }
}

/// Each is asked once, rests, and is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_little_and_stay() {
    let target = Target::start("").await;
    let count = connections(scaled(500, 5_000));
    // Most of it is what h2 keeps to read and write, while the connection lives.
    let cost = 16 * MIB + count * 40 * 1024;
    block_in_place(|| {
        target.survives(cost, |stage| {
            let mut open: Vec<Frames> = (0..count)
                .map(|_| {
                    let mut frames = Frames::open(stage, &[]);
                    assert!(frames.is_served());
                    frames
                })
                .collect();
            stage.hold();
            for frames in &mut open {
                assert!(frames.is_served(), "it was closed");
            }
        })
    });
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_hold_up_nobody() {
    let target = Target::start("").await;
    let path = target.blob.clone();
    block_in_place(|| {
        target.survives(64 * MIB, |stage| {
            ended_early(stage, 100_000, |frames| {
                frames
                    .request(2, &path, END_STREAM | END_HEADERS)
                    .is_some_and(|stream| frames.send(RST_STREAM, 0, stream, &8u32.to_be_bytes()))
            });
        })
    });
}

/// CVE-2024-27316 and its kin.
#[tokio::test(flavor = "multi_thread")]
async fn endless_continuations_hold_up_nobody() {
    let target = Target::start("").await;
    // A literal header without indexing, again and again.
    let mut block = vec![0x00, 1, b'a', 100];
    block.extend([b'b'; 100]);
    let block = block.repeat(100);
    block_in_place(|| {
        target.survives(32 * MIB, |stage| {
            ended_early(stage, 2_000, |frames| {
                if frames.next == 1 {
                    frames.request(2, "/v2/", END_STREAM).is_some()
                } else {
                    frames.send(CONTINUATION, 0, 1, &block)
                }
            });
        })
    });
}

/// CVE-2019-9512 and CVE-2019-9515: answers are owed, and the client does not read them.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_settings_and_pings_do_not_pile_up() {
    let target = Target::start("").await;
    block_in_place(|| {
        target.survives(32 * MIB, |stage| {
            let mut flooders: Vec<(Frames, u8, &[u8])> = (0..8)
                .flat_map(|_| [(SETTINGS, &[][..]), (PING, &[0; 8][..])])
                .map(|(kind, payload)| {
                    let frames = Frames::open(stage, &[]);
                    frames.socket.set_nonblocking(true).unwrap();
                    (frames, kind, payload)
                })
                .collect();
            stage.began();
            let start = Instant::now();
            let mut sent = 0_u64;
            while !stage.measured() || start.elapsed() < Duration::from_secs(2) {
                let mut taken = 0;
                for (frames, kind, payload) in &mut flooders {
                    // A frame that was cut by a full socket ends that flood; the answers to the others are still owed.
                    taken += (0..100)
                        .take_while(|_| frames.send(*kind, 0, 0, payload))
                        .count() as u64;
                }
                sent += taken;
                if taken == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            assert!(sent > 1_000, "{sent} frames are no flood");
        })
    });
}

/// CVE-2019-9518: frames that carry nothing, for as long as the upload may stand still.
#[tokio::test(flavor = "multi_thread")]
async fn empty_data_frames_do_not_count_as_progress() {
    let target = Target::start("[limits]\nprogress_window = '2s'\n").await;
    let path = "/v2/team/app/blobs/uploads/?digest=sha256:\
                e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    block_in_place(|| {
        target.survives(32 * MIB, |stage| {
            let mut flooders: Vec<Frames> = (0..4)
                .map(|_| {
                    let mut frames = Frames::open(stage, &[]);
                    frames.request(3, path, END_HEADERS).unwrap();
                    frames
                })
                .collect();
            stage.began();
            let start = Instant::now();
            let mut ended = vec![false; flooders.len()];
            while !stage.measured() || ended.contains(&false) {
                assert!(start.elapsed() < Duration::from_secs(60), "{ended:?}");
                for (frames, ended) in flooders.iter_mut().zip(&mut ended) {
                    if !*ended && !(0..200).all(|_| frames.send(DATA, 0, 1, &[])) {
                        *ended = true;
                        continue;
                    }
                    // An answer or a reset of the stream is an end as well.
                    frames
                        .socket
                        .set_read_timeout(Some(Duration::from_millis(1)))
                        .unwrap();
                    let mut first = [0; 1];
                    if !*ended && frames.socket.peek(&mut first).is_ok() {
                        frames
                            .socket
                            .set_read_timeout(Some(Duration::from_secs(5)))
                            .unwrap();
                        *ended = match frames.read() {
                            Some((HEADERS | RST_STREAM, _, 1, _)) | Some((GOAWAY, ..)) | None => {
                                true
                            }
                            Some(_) => false,
                        };
                    }
                }
            }
        })
    });
}

/// CVE-2019-9511: a window that opens byte by byte. It costs its own connection, and no memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_opens_by_single_bytes_costs_only_itself() {
    let target = Target::start("").await;
    let path = target.blob.clone();
    block_in_place(|| {
        target.survives(64 * MIB, |stage| {
            // 4: SETTINGS_INITIAL_WINDOW_SIZE.
            let mut frames = Frames::open(stage, &[(4, 0)]);
            let streams: Vec<u32> = (0..64)
                .map(|_| frames.request(2, &path, END_STREAM | END_HEADERS).unwrap())
                .collect();
            let mut reader = frames.socket.try_clone().unwrap();
            let mut came = 0;
            stage.began();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut buffer = [0; 64 * 1024];
                    while let Ok(read @ 1..) = reader.read(&mut buffer) {
                        came += read;
                    }
                });
                while !stage.measured() {
                    for stream in &streams {
                        frames.send(WINDOW_UPDATE, 0, *stream, &1_u32.to_be_bytes());
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                let _ = frames.socket.shutdown(std::net::Shutdown::Both);
            });
            assert!(came > 0, "nothing was sent, so nothing was tested");
        })
    });
}

/// RFC 9113 §6.9.1.
#[tokio::test(flavor = "multi_thread")]
async fn windows_that_overflow_or_do_not_grow_end_the_connection() {
    let target = Target::start("").await;
    block_in_place(|| {
        target.survives(32 * MIB, |stage| {
            stage.began();
            let mut cycles = 0;
            while !stage.measured() || cycles < scaled(10, 500) {
                cycles += 1;
                for increments in [&[0x7fff_ffff_u32, 0x7fff_ffff][..], &[0]] {
                    let mut frames = Frames::open(stage, &[]);
                    for increment in increments {
                        frames.send(WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
                    }
                    assert!(frames.is_ended(), "{increments:?}");
                }
            }
            until("connections stay", || stage.rid_of_us());
        })
    });
}
