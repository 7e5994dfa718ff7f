//! Signing in by device (RFC 8628): a code here, a browser anywhere, and questions until somebody has confirmed it.

use std::time::{Duration, Instant};

use super::super::wire::Target;
use super::oauth::{self, Answered, Code, DEVICE_GRANT, Endpoints, Grant};
use crate::cli::exit::{Exit, Failure};

/// Longer than this nobody waits between two questions.
const LONGEST: Duration = Duration::from_secs(60);
/// What `slow_down` adds (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// Time, as the waiting sees it.
pub(super) trait Pace {
    /// Since some moment.
    fn elapsed(&self) -> Duration;
    fn pause(&self, time: Duration);
}

/// Time as it is.
pub(super) struct Real(Instant);

impl Real {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Pace for Real {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// What happens on the way.
pub(in crate::cli) enum Event<'a> {
    /// This is to be confirmed.
    Code(&'a Code),
    /// The registry did not answer; it is asked again. Told once.
    Unanswered(&'a Failure),
}

/// Signs in. `name` is this machine's, for the person who confirms.
pub(super) fn sign_in(
    target: Target<'_>,
    endpoints: &Endpoints,
    name: &str,
    pace: &dyn Pace,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Grant, Failure> {
    let code = oauth::code(target, endpoints, name)?;
    let end = pace.elapsed() + code.lasts;
    tell(Event::Code(&code));
    let mut interval = code.interval;
    // Longer while answers do not come (RFC 8628, 3.5). The code stays good.
    let mut wait = interval;
    let mut is_told = false;
    let over = |why: &str| {
        let text = format!(
            "{why}; run `{}` again for another one",
            oauth::login(target.url)
        );
        Err(Failure::text(Exit::Failure, text))
    };
    loop {
        let left = end.saturating_sub(pace.elapsed());
        if left.is_zero() {
            return over("the code is over, and nobody has confirmed it");
        }
        pace.pause(wait.min(left));
        let form = [
            ("grant_type", DEVICE_GRANT),
            ("device_code", &code.device_code),
        ];
        match oauth::tokens(target, &endpoints.token, &form) {
            Answered::Granted(grant) => return Ok(grant),
            Answered::Unclear(failure) => {
                wait = (wait * 2).min(LONGEST);
                if !std::mem::replace(&mut is_told, true) {
                    tell(Event::Unanswered(&failure));
                }
            }
            Answered::Refused { error, told } => match error.as_str() {
                "authorization_pending" => wait = interval,
                "slow_down" => {
                    interval = (interval + SLOWER).min(LONGEST);
                    wait = interval;
                }
                "access_denied" => return over("the code was refused in the browser"),
                "expired_token" => return over("the code is over, and nobody has confirmed it"),
                "invalid_grant" => return over("the code is no longer known there"),
                _ => {
                    let text = format!("{} signs nobody in: {told}", target.url);
                    return Err(Failure::text(Exit::Failure, text));
                }
            },
        }
    }
}
