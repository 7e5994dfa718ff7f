//! People of LDAP directories, for `wharf_core::directory`: who they are, whether a password is theirs, and their groups.
//!
//! One question goes to one server, from its search to its groups; when that one fails, it goes to the next from the beginning.

mod groups;
mod line;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use wharf_core::access::Password;
use wharf_core::directory::message::{Entry, Outcome, Search};
use wharf_core::directory::{
    Asked, Directory, DirectorySettings, Dn, Fault, Filter, IDS, Identity, LOCKS, Person, Scope,
    ServerUrl, Source, Story, Verdict, by_identity, by_name, identity, is_user_name, locked,
};

use self::line::{Found, Line, SearchError, Trouble};
use self::servers::{Lines, Servers};

/// One question takes no longer, however many servers there are.
const LONGEST: Duration = Duration::from_secs(20);

/// An LDAP directory.
#[derive(Debug)]
pub struct Ldap {
    settings: DirectorySettings,
    servers: Servers,
}

/// A directory of the configuration.
#[derive(Debug, Clone)]
pub struct LdapOptions {
    /// How it is asked.
    pub settings: DirectorySettings,
    /// Whether a user is made for whoever comes from there first.
    pub onboards: bool,
}

impl LdapOptions {
    /// What core asks; nothing is connected yet.
    pub(super) fn open(self) -> Result<Source, String> {
        let onboards = self.onboards;
        let directory = Arc::new(Ldap::new(self.settings)?);
        Ok(Source {
            directory,
            onboards,
        })
    }
}

/// What is asked.
#[derive(Clone, Copy)]
enum Ask<'a> {
    SignIn(&'a str, &'a Password),
    Find(&'a str),
    Again(&'a Identity),
}

/// Why a server gave no answer.
#[derive(Debug)]
enum Stop {
    /// This one cannot be used: another one may.
    Server(Trouble),
    /// It says no to what the configuration has it asked: so would another one.
    Settings(Trouble),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Server(trouble)
    }
}

/// That the server is not able to answer just now.
fn is_passing(outcome: &Outcome) -> bool {
    matches!(outcome.code, 51 | 52)
}

fn no(what: String, outcome: &Outcome, cure: &'static str) -> Stop {
    let trouble = Trouble {
        what: format!("{what}: {outcome}"),
        cure,
    };
    match is_passing(outcome) {
        true => Stop::Server(trouble),
        false => Stop::Settings(trouble),
    }
}

/// What a search that was refused means.
fn refused(url: &ServerUrl, base: &str, outcome: &Outcome) -> Stop {
    let cure = match outcome.code {
        1 | 8 | 50 => "give a `search_dn` that may search there, and its `search_password`",
        10 => "referrals are not followed: write servers into `urls` that hold this themselves",
        13 => "use ldaps:// or `start_tls = true`",
        32 => {
            "see that the distinguished name (`base_dn`, `group_base_dn`) is right and the search account may see it"
        }
        34 => "write `base_dn` and `group_base_dn` as distinguished names of this directory",
        _ => "see that `filter`, `group_filter` and the attributes are ones that this server knows",
    };
    no(
        format!("{url} refuses to search below {base:?}"),
        outcome,
        cure,
    )
}

impl Ldap {
    /// A directory with these settings; nothing is connected yet.
    pub fn new(settings: DirectorySettings) -> Result<Self, String> {
        let servers = Servers::new(&settings)
            .map_err(|error| format!("[[auth.ldap]] {:?}: {error}", settings.name))?;
        Ok(Self { settings, servers })
    }

    /// Whether each server can be reached, lets the search account in and has the base: one sentence for each that works, and one
    /// for each that does not.
    pub async fn probe(&self) -> Vec<Result<String, Fault>> {
        let mut told = Vec::new();
        for server in &self.servers.all {
            let mut lines = Lines::default();
            let mut story = Story::default();
            let looked = async {
                let line = self
                    .search_line(&server.url, &mut lines, &mut story)
                    .await?;
                let nothing = Filter::Present("objectClass".to_owned());
                let base = self.settings.base.as_str();
                search(line, &server.url, base, Scope::Base, &nothing, &["1.1"], 1).await?;
                Ok::<_, Stop>(line.security)
            };
            let looked = looked.await;
            told.push(match looked {
                Ok(security) => Ok(format!(
                    "The directory {} can be searched at {}, {security}.",
                    self.settings.name, server.url
                )),
                Err(Stop::Server(trouble) | Stop::Settings(trouble)) => Err(self.fault(&trouble)),
            });
            close(lines).await;
        }
        told
    }

    fn fault(&self, trouble: &Trouble) -> Fault {
        Fault {
            what: format!("[[auth.ldap]] {:?}: {}", self.settings.name, trouble.what),
            cure: trouble.cure.to_owned(),
        }
    }

    /// Asks the servers in their order until one answers.
    async fn ask(&self, ask: Ask<'_>, story: &mut Story) -> Result<Verdict, Fault> {
        let _place = self.servers.place(&self.settings.name).await?;
        let mut last = None;
        for server in &self.servers.all {
            if let Err(why) = server.admits() {
                story.bad(
                    format!("{} is left alone for a while: {}", server.url, why.what),
                    why.cure,
                );
                last = Some(why);
                continue;
            }
            let mut lines = server.take();
            let kept = lines.search.is_some() || lines.bind.is_some();
            let mut answered = self.on(&server.url, &mut lines, ask, story).await;
            if kept && matches!(answered, Err(Stop::Server(_))) {
                // What was kept may have been closed by the server meanwhile, which says nothing about it.
                lines = Lines::default();
                answered = self.on(&server.url, &mut lines, ask, story).await;
            }
            match answered {
                Ok(verdict) => {
                    self.servers.keep(server, lines);
                    return Ok(verdict);
                }
                Err(Stop::Server(trouble)) => {
                    story.bad(trouble.what.clone(), trouble.cure);
                    tracing::warn!(
                        directory = self.settings.name,
                        "{}; {}",
                        trouble.what,
                        trouble.cure
                    );
                    server.fail(trouble.clone());
                    last = Some(trouble);
                }
                Err(Stop::Settings(trouble)) => {
                    story.bad(trouble.what.clone(), trouble.cure);
                    tracing::error!(
                        directory = self.settings.name,
                        "{}; {}",
                        trouble.what,
                        trouble.cure
                    );
                    // Left alone, too: a search account whose password is wrong must not lock itself out.
                    server.fail(trouble.clone());
                    return Err(self.fault(&trouble));
                }
            }
        }
        let none = || Trouble {
            what: "no server is named".to_owned(),
            cure: "name one in `urls`",
        };
        Err(self.fault(&last.unwrap_or_else(none)))
    }

    async fn within(&self, ask: Ask<'_>, story: &mut Story) -> Result<Verdict, Fault> {
        let asked = timeout(LONGEST, self.ask(ask, story)).await;
        asked.unwrap_or_else(|_| {
            Err(Fault {
                what: format!(
                    "[[auth.ldap]] {:?} gave no answer within {} s",
                    self.settings.name,
                    LONGEST.as_secs()
                ),
                cure:
                    "see what keeps its servers busy, or lower `connect_timeout` and `read_timeout`"
                        .to_owned(),
            })
        })
    }

    /// Everything that one question needs, on one server.
    async fn on(
        &self,
        url: &ServerUrl,
        lines: &mut Lines,
        ask: Ask<'_>,
        story: &mut Story,
    ) -> Result<Verdict, Stop> {
        let found = match ask {
            Ask::SignIn(name, _) | Ask::Find(name) => {
                let filter = by_name(
                    self.settings.filter.as_ref(),
                    &self.settings.user_attribute,
                    name,
                );
                let (base, scope) = (self.settings.base.as_str(), self.settings.scope);
                self.people(url, lines, base, scope, &filter, story).await?
            }
            Ask::Again(identity) => match by_identity(self.settings.filter.as_ref(), identity) {
                Some(filter) => {
                    let (base, scope) = (self.settings.base.as_str(), self.settings.scope);
                    self.people(url, lines, base, scope, &filter, story).await?
                }
                None => self.at(url, lines, &identity.value, story).await?,
            },
        };
        let several = found.cut || found.entries.len() > 1;
        let Some(entry) = found.entries.into_iter().next() else {
            story.bad("no entry has this name", "see `base_dn`, `scope`, `filter` and `user_attribute`, and whether the search account may see the entry");
            if let Ask::SignIn(_, password) = ask {
                // As long as for somebody who is there.
                let nobody = format!("cn={},{}", uuid::Uuid::new_v4(), self.settings.base);
                self.bind_as(url, lines, &nobody, password).await?;
            }
            return Ok(Verdict::Unknown);
        };
        if several {
            let why = "several entries have this name, and nobody can say who is meant";
            story.bad(
                why,
                "narrow `base_dn` or `filter` so that a name is one entry's alone",
            );
            return Ok(Verdict::Unusable(why.to_owned()));
        }
        story.good(format!("one entry was found: {}", entry.dn));
        let known = match ask {
            Ask::SignIn(name, _) | Ask::Find(name) => Some(name),
            Ask::Again(_) => None,
        };
        let (dn, name, identity) = match self.who(&entry, known) {
            Ok(who) => who,
            Err(why) => {
                story.bad(
                    why.clone(),
                    "see `user_attribute` and `id_attribute`, and the entry",
                );
                return Ok(Verdict::Unusable(why));
            }
        };
        if let Ask::SignIn(_, password) = ask {
            let outcome = self.bind_as(url, lines, &entry.dn, password).await?;
            if !outcome.is_good() {
                story.bad(
                    format!("the server refuses this password: {outcome}"),
                    "try the password with another client; the directory says whether it ended or the account is locked",
                );
                return Ok(Verdict::Wrong);
            }
            story.good("the server accepts the password");
        }
        if let Some(why) = locked(&entry) {
            story.bad(why, "unlock the account in the directory");
            return Ok(Verdict::Locked(why.to_owned()));
        }
        story.good(format!(
            "the user's name here is {name}, known by {identity}"
        ));
        let line = self.search_line(url, lines, story).await?;
        let groups =
            groups::of(line, url, &self.settings.groups, &entry, &dn, &name, story).await?;
        Ok(Verdict::Proved(Box::new(Person {
            subject: identity.to_string(),
            name,
            dn: dn.normal(),
            groups: groups.names,
            admin: groups.admin,
        })))
    }

    /// Name and identity of an entry.
    fn who(&self, entry: &Entry, asked: Option<&str>) -> Result<(Dn, String, Identity), String> {
        let attribute = self.settings.user_attribute.as_str();
        let dn = Dn::parse(&entry.dn)
            .map_err(|error| format!("the entry's name cannot be read: {error}"))?;
        let mut names: Vec<String> = entry.texts(attribute).map(str::to_lowercase).collect();
        names.sort_unstable();
        // Some servers find more than was asked for: blanks, accents and widths of letters may be the same to them.
        if let Some(asked) = asked.map(str::to_lowercase)
            && !names.contains(&asked)
        {
            return Err(format!(
                "the entry's {attribute} is another name than the one that was given"
            ));
        }
        let own = dn
            .own(attribute)
            .map(str::to_lowercase)
            .filter(|own| names.contains(own));
        let name = own.or_else(|| names.into_iter().next()).unwrap_or_default();
        if !is_user_name(&name) {
            return Err(format!(
                "the entry's {attribute} is no user name here: {name:?}"
            ));
        }
        let identity = identity(entry, &dn, self.settings.id_attribute.as_deref())?;
        Ok((dn, name, identity))
    }

    async fn people(
        &self,
        url: &ServerUrl,
        lines: &mut Lines,
        base: &str,
        scope: Scope,
        filter: &Filter,
        story: &mut Story,
    ) -> Result<Found, Stop> {
        let line = self.search_line(url, lines, story).await?;
        story.good(format!("searching below {base:?} for {filter}"));
        search(line, url, base, scope, filter, &self.attributes(), 2).await
    }

    /// The entry of that name, if there is one and it may sign in.
    async fn at(
        &self,
        url: &ServerUrl,
        lines: &mut Lines,
        dn: &str,
        story: &mut Story,
    ) -> Result<Found, Stop> {
        let line = self.search_line(url, lines, story).await?;
        let any = Filter::Present("objectClass".to_owned());
        let filter = self.settings.filter.clone().unwrap_or(any);
        let asked = Search {
            base: dn,
            scope: Scope::Base,
            filter: &filter,
            attributes: &self.attributes(),
            entries: 2,
            time: 0,
            page: None,
        };
        match line.search(url, &asked).await {
            Err(SearchError::Refused(outcome)) if outcome.code == 32 => Ok(Found::default()),
            Err(SearchError::Refused(outcome)) => Err(refused(url, dn, &outcome)),
            Err(SearchError::Line(trouble)) => Err(trouble.into()),
            Ok(found) => Ok(found),
        }
    }

    fn attributes(&self) -> Vec<&str> {
        let mut all = vec![self.settings.user_attribute.as_str()];
        all.extend(
            self.settings
                .id_attribute
                .as_deref()
                .filter(|name| !name.eq_ignore_ascii_case("dn")),
        );
        all.extend(IDS);
        all.extend(LOCKS);
        all.extend(self.settings.groups.member_of.as_deref());
        all
    }

    /// A connection that is signed in as the account that searches.
    async fn search_line<'a>(
        &self,
        url: &ServerUrl,
        lines: &'a mut Lines,
        story: &mut Story,
    ) -> Result<&'a mut Line, Stop> {
        if lines.search.is_none() {
            let mut line = Line::open(url, &self.servers.manner).await?;
            story.good(format!("{url} was reached, {}", line.security));
            match self.settings.search_dn.as_str() {
                "" => story.good("searching without an account (`search_dn` is not set)"),
                dn => {
                    let password = self
                        .settings
                        .search_password
                        .as_ref()
                        .map_or("", Password::reveal);
                    let outcome = line.bind(url, dn, password).await?;
                    if !outcome.is_good() {
                        let cure = match outcome.code {
                            8 | 13 => "use ldaps:// or `start_tls = true`",
                            _ => "see `search_dn` and `search_password`",
                        };
                        return Err(no(
                            format!("{url} does not let the search account {dn:?} in"),
                            &outcome,
                            cure,
                        ));
                    }
                    story.good(format!("the search account {dn} was let in"));
                }
            }
            lines.search = Some(line);
        }
        lines.search.as_mut().ok_or_else(|| {
            Stop::Server(Trouble {
                what: format!("{url} was lost"),
                cure: "try again",
            })
        })
    }

    /// Whether the server takes this password for that entry. What says nothing about the password is an error.
    async fn bind_as(
        &self,
        url: &ServerUrl,
        lines: &mut Lines,
        dn: &str,
        password: &Password,
    ) -> Result<Outcome, Stop> {
        let line = match &mut lines.bind {
            Some(line) => line,
            empty => empty.insert(Line::open(url, &self.servers.manner).await?),
        };
        let outcome = line.bind(url, dn, password.reveal()).await?;
        match outcome.code {
            // Wrong, none there, not now, too often, not there, not allowed.
            0 | 19 | 32 | 34 | 48 | 49 | 50 | 53 => Ok(outcome),
            8 | 13 => Err(no(
                format!("{url} takes no passwords here"),
                &outcome,
                "use ldaps:// or `start_tls = true`",
            )),
            10 => Err(no(
                format!("{url} sends people elsewhere"),
                &outcome,
                "referrals are not followed: write servers into `urls` that check passwords themselves",
            )),
            _ => Err(no(
                format!("{url} checks no password"),
                &outcome,
                "see in the server's log why",
            )),
        }
    }
}

/// A search whose refusal is a matter of the settings.
async fn search(
    line: &mut Line,
    url: &ServerUrl,
    base: &str,
    scope: Scope,
    filter: &Filter,
    attributes: &[&str],
    entries: i32,
) -> Result<Found, Stop> {
    let asked = Search {
        base,
        scope,
        filter,
        attributes,
        entries,
        time: 0,
        page: None,
    };
    match line.search(url, &asked).await {
        Ok(found) => Ok(found),
        Err(SearchError::Refused(outcome)) => Err(refused(url, base, &outcome)),
        Err(SearchError::Line(trouble)) => Err(trouble.into()),
    }
}

async fn close(lines: Lines) {
    for line in [lines.search, lines.bind].into_iter().flatten() {
        line.close().await;
    }
}

impl Directory for Ldap {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn sign_in<'a>(
        &'a self,
        name: &'a str,
        password: &'a Password,
        story: &'a mut Story,
    ) -> Asked<'a, Verdict> {
        Box::pin(async move {
            // Whoever calls has looked; a server that says yes to no password must never be asked.
            if !wharf_core::directory::acceptable(name, password.reveal()) {
                return Ok(Verdict::Unknown);
            }
            self.within(Ask::SignIn(name, password), story).await
        })
    }

    fn find<'a>(&'a self, name: &'a str, story: &'a mut Story) -> Asked<'a, Verdict> {
        Box::pin(async move {
            match is_user_name(name) {
                true => self.within(Ask::Find(name), story).await,
                false => {
                    let why = "this is no user name here";
                    story.bad(why, "give the name with which the user signs in");
                    Ok(Verdict::Unusable(why.to_owned()))
                }
            }
        })
    }

    fn again<'a>(&'a self, subject: &'a str) -> Asked<'a, Option<Person>> {
        Box::pin(async move {
            let Some(identity) = Identity::parse(subject) else {
                return Ok(None);
            };
            match self
                .within(Ask::Again(&identity), &mut Story::default())
                .await?
            {
                Verdict::Proved(person) => Ok(Some(*person)),
                Verdict::Unknown | Verdict::Wrong | Verdict::Locked(_) => Ok(None),
                // Something about the directory is not as it was: that ends nobody.
                Verdict::Unusable(what) => Err(Fault {
                    what: format!("[[auth.ldap]] {:?}: {what}", self.settings.name),
                    cure: "see `wharf ldap check`".to_owned(),
                }),
            }
        })
    }
}
